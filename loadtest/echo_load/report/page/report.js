"use strict";

const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 600px)");
const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);

// What a colour of the style sheet is at the moment: light, dark or printed.
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

function faint(shown, alpha) {
  return shown.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}

function axis(given) {
  return {
    automargin: true,
    color: colour("quiet"),
    fixedrange: true,
    gridcolor: colour("grid"),
    linecolor: colour("line"),
    zeroline: false,
    ...given,
  };
}

function painted(trace) {
  const shown = colour(trace.meta.colour);
  if (trace.type === "bar") {
    const pattern = { ...trace.marker.pattern, fillmode: "replace", fgcolor: shown };
    return { ...trace, marker: { color: shown, line: { color: shown, width: 1 }, pattern } };
  }
  return {
    ...trace,
    line: { ...trace.line, color: shown },
    marker: { ...trace.marker, color: shown },
    fillcolor: faint(shown, 0.14),
  };
}

function outlined(shape) {
  const label = { ...shape.label, font: { color: colour("quiet"), size: 11 } };
  if (shape.type === "line") {
    return { ...shape, label, line: { color: colour("guide"), width: 1.2, dash: "4px,4px" } };
  }
  const fillcolor = shape.name === "shaded" ? colour("shade") : "rgba(0, 0, 0, 0)";
  return { ...shape, label, fillcolor, line: { width: 0 } };
}

function draw(name, { data, layout }) {
  const text = colour("text");
  const card = colour("card");
  return Plotly.react(
    `chart-${name}`,
    data.map(painted),
    {
      hovermode: "x unified",
      hoverdistance: 60,
      bargap: 0.2,
      ...layout,
      shapes: (layout.shapes ?? []).map(outlined),
      xaxis: axis({ showgrid: layout.hovermode === "closest", ...layout.xaxis }),
      yaxis: axis(layout.yaxis),
      font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: card, bordercolor: colour("line"), font: { color: text, size: 12 } },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.03, yanchor: "bottom" },
      margin: { l: 8, r: narrow.matches ? 10 : 16, t: 12, b: 8 },
      paper_bgcolor: "rgba(0, 0, 0, 0)",
      plot_bgcolor: "rgba(0, 0, 0, 0)",
    },
    { displayModeBar: false, responsive: true },
  );
}

const shown = Object.keys(figures).filter((name) => document.getElementById(`chart-${name}`));

// A chart that cannot be drawn keeps no other from being drawn.
async function each(action) {
  const results = await Promise.allSettled(shown.map(async (name) => action(name)));
  for (const { reason } of results.filter(({ status }) => status === "rejected")) {
    console.error(reason);
  }
}

function paint() {
  return each((name) => draw(name, figures[name]));
}

function resize() {
  return each((name) => Plotly.Plots.resize(`chart-${name}`));
}

// Paper is light, and as wide as it is.
function print(printing) {
  document.documentElement.classList.toggle("printing", printing);
  paint();
  resize();
}

dark.addEventListener("change", paint);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
paint().then(() => document.body.setAttribute("data-drawn", ""));
