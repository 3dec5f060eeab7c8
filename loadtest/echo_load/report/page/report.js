"use strict";

// Data and layout of each chart that has an element, by its name.
let figures = {};
let shown = [];
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

// On a phone every second time on the clock has space.
function spaced(given) {
  const { tickvals = [], ticktext = [] } = given;
  if (!narrow.matches || tickvals.length <= 3) {
    return given;
  }
  const even = (_, number) => number % 2 === 0;
  return { ...given, tickvals: tickvals.filter(even), ticktext: ticktext.filter(even) };
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

// A row of the hover box: the time on the clock. The trace itself is invisible.
function clock(data, begin) {
  const { x, y } = data.reduce((most, one) => (one.x.length > most.x.length ? one : most));
  const at = (second) => new Date(Date.parse(begin) + second * 1000).toISOString().slice(11, 19);
  return {
    type: "scatter",
    mode: "none",
    showlegend: false,
    x,
    y,
    text: x.map((second) => `${at(second)} UTC`),
    hovertemplate: "%{text}<extra></extra>",
  };
}

function draw(name, { data, layout }) {
  const text = colour("text");
  const card = colour("card");
  const traces = data.map(painted);
  const begin = layout.meta?.clock;
  return Plotly.react(
    `chart-${name}`,
    begin ? [clock(data, begin), ...traces] : traces,
    {
      hovermode: "x unified",
      hoverdistance: 60,
      bargap: 0.2,
      ...layout,
      shapes: (layout.shapes ?? []).map(outlined),
      xaxis: axis({
        showgrid: layout.hovermode === "closest",
        ...(begin ? spaced(layout.xaxis) : layout.xaxis),
      }),
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

// A chart that cannot be drawn keeps no other from being drawn.
async function each(names, action) {
  const results = await Promise.allSettled(names.map(async (name) => action(name)));
  for (const { reason } of results.filter(({ status }) => status === "rejected")) {
    console.error(reason);
  }
}

function paint(names = shown) {
  return each(names, (name) => draw(name, figures[name]));
}

function resize() {
  return each(shown, (name) => Plotly.Plots.resize(`chart-${name}`));
}

// Paper is light, and as wide as it is.
function print(printing) {
  document.documentElement.classList.toggle("printing", printing);
  paint();
  resize();
}

// The content of an element with compressed data.
function unpacked(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(packed.length);
  for (let at = 0; at < packed.length; at += 1) {
    bytes[at] = packed.charCodeAt(at);
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// The policy of the page allows only the script with the right hash.
function execute(text) {
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
}

async function drawCharts() {
  figures = await unpacked("figures").json();
  shown = Object.keys(figures).filter((name) => document.getElementById(`chart-${name}`));
  if (shown.length > 0) {
    execute(await unpacked("plotly").text());
    if (globalThis.Plotly === undefined) {
      throw new Error("plotly.js was not executed");
    }
    for (const name of shown) {
      await paint([name]);
      // The first charts are seen before the last ones are drawn.
      await new Promise((resolve) => setTimeout(resolve));
    }
    dark.addEventListener("change", () => paint());
    narrow.addEventListener("change", () => paint());
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
  }
}

async function download({ dataset }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await unpacked(dataset.download).blob());
  link.download = dataset.file;
  link.click();
  // Browsers may read it later.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function undrawable() {
  document.body.classList.add("without-charts");
  document.getElementById("undrawable").hidden = false;
}

async function begin() {
  if (globalThis.DecompressionStream === undefined) {
    undrawable();
    return;
  }
  for (const button of document.querySelectorAll("button[data-download]")) {
    button.addEventListener("click", () => download(button));
    button.hidden = false;
  }
  try {
    await drawCharts();
  } catch (error) {
    console.error(error);
    undrawable();
  }
}

begin().then(() => document.body.setAttribute("data-drawn", ""));
