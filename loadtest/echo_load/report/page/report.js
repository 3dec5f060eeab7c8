"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const COLOURS = 6;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function shade(number) {
  return colour(`--c${number % COLOURS}`);
}

function axis(given) {
  return {
    automargin: true,
    color: colour("--quiet"),
    fixedrange: true,
    gridcolor: colour("--line"),
    linecolor: colour("--line"),
    zerolinecolor: colour("--line"),
    ...given,
  };
}

function draw(name, { data, layout }) {
  const traces = data.map((trace) => {
    const shown = shade(trace.meta.colour);
    const painted = { ...trace };
    if (trace.type === "bar") {
      painted.marker = { color: shown };
    } else {
      painted.line = { ...trace.line, color: shown };
      painted.marker = { color: shown };
      painted.fillcolor = shown + "22";
    }
    return painted;
  });
  const shapes = (layout.shapes ?? []).map((shape) => ({
    ...shape,
    line: { color: colour("--quiet"), width: 1, dash: "dot" },
  }));
  return Plotly.react(
    `chart-${name}`,
    traces,
    {
      hovermode: "x unified",
      ...layout,
      shapes,
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
      font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { l: 8, r: 12, t: layout.showlegend ? 8 : 16, b: 8 },
      paper_bgcolor: "transparent",
      plot_bgcolor: "transparent",
    },
    { displayModeBar: false, responsive: true },
  );
}

function paint() {
  for (const swatch of document.querySelectorAll(".swatch")) {
    swatch.style.background = shade(Number(swatch.dataset.colour));
  }
  return Promise.all(Object.entries(figures).map(([name, figure]) => draw(name, figure)));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
addEventListener("beforeprint", paint);
paint().then(() => document.body.setAttribute("data-drawn", ""));
