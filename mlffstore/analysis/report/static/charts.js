"use strict";
// Charts by plotly. A bar or a point leads to its structures; a selection filters the list.
const charts = (() => {
  const { data, columns, make, text } = report;
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999933", "#882255"];
  const OTHER = "#999999";
  const drawn = [];
  const escape = value => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const coarse = matchMedia("(pointer: coarse)").matches;
  let printing = false;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function layout(chart, more) {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, tickfont: { size: 11 } };
    const { xaxis = {}, yaxis = {}, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 12 },
      margin: { l: 50, r: 8, t: 8, b: 44 }, height: chart.kind === "histogram" ? 250 : 330, autosize: !printing,
      width: printing ? 340 : undefined, hovermode: "closest",
      hoverlabel: { bgcolor: colour("--soft"), font: { color: colour("--ink") }, align: "left" },
      legend: { orientation: "h", y: -0.22, yanchor: "top", font: { size: 11 } }, dragmode: coarse ? false : "select", bargap: 0.04,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--line"), activecolor: colour("--link") },
      ...rest, xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis },
    };
  }

  function hover(row) {
    const lines = [`<b>${escape(text("index", row))} ${escape(text("formula", row))}</b>`];
    for (const key of ["sampler", "split", "flags"]) {
      if (columns.has(key) && text(key, row)) lines.push(`${columns.get(key).label}: ${escape(text(key, row))}`);
    }
    for (const teacher of data.teachers) {
      const key = "force_max:" + teacher;
      if (columns.has(key) && text(key, row)) lines.push(`largest |F|, ${escape(teacher)}: ${text(key, row)} eV/Å`);
    }
    return lines.join("<br>");
  }

  // -- groups of points -----------------------------------------------------------------------------------

  // Return groups [{name, colour, at}] of the points by a column; `at` are places in `rows`.
  function grouped(rows, key) {
    const column = columns.get(key), groups = new Map();
    rows.forEach((row, i) => {
      const name = text(key, row) || "none";
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(i);
    });
    let several = [...groups].sort((a, b) => b[1].length - a[1].length);
    if (column.kind === "code" && column.words.length < 8) several.sort((a, b) => column.words.indexOf(a[0]) - column.words.indexOf(b[0]));
    if (several.length > 8) several = [...several.slice(0, 7), [`${several.length - 7} others`, several.slice(7).flatMap(one => one[1])]];
    return several.map(([name, at], k) => ({ name, at, colour: name.endsWith(" others") ? OTHER : COLOURS[k] }));
  }

  function trace(rows, x, y, at, name, marker) {
    return {
      type: "scatter", mode: "markers", x: at.map(i => x[i]), y: at.map(i => y[i]), customdata: at.map(i => rows[i]),
      text: at.map(i => hover(rows[i])), hovertemplate: "%{text}<extra></extra>", name: escape(name),
      marker: { size: 5, opacity: 0.75, ...marker }, selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.12 } },
    };
  }

  function points(rows, x, y, by) {
    const column = by && columns.get(by);
    if (!column) return [trace(rows, x, y, rows.map((_, i) => i), "", { color: COLOURS[0] })];
    if (column.kind !== "number") {
      return grouped(rows, by).map(group => trace(rows, x, y, group.at, group.name, { color: group.colour }));
    }
    const at = rows.map((_, i) => i).filter(i => column.values[rows[i]] !== null);
    const values = at.map(i => column.values[rows[i]]), sorted = [...values].sort((a, b) => a - b);
    const some = trace(rows, x, y, at, column.label, {
      color: values, colorscale: "Viridis", showscale: true, cmin: sorted[0], cmax: sorted[Math.floor(0.99 * (sorted.length - 1))],
      colorbar: { thickness: 10, outlinewidth: 0, title: { text: escape(column.unit), side: "right" } },
    });
    return [{ ...some, showlegend: false }];
  }

  const BY = () => data.columns.filter(column => ["split", "sampler", "source", "kind", "periodic", "severity", "flags"].includes(column.key)
    || (column.kind === "number" && (/^(force_max|energy_residual):/.test(column.key) || ["n_atoms", "d_min", "spread"].includes(column.key))));

  function selector(name, options, change) {
    return make("select", { "aria-label": name, onchange: event => change(event.target.value) },
      ...options.map(([value, label]) => make("option", { value }, label)));
  }

  // -- kinds of charts ------------------------------------------------------------------------------------

  function scatter(chart) {
    const preferred = chart.kind === "map" ? ["kind", "sampler", "source", "split"] : ["split", "sampler", "kind"];
    let by = preferred.find(key => columns.has(key) && new Set(columns.get(key).values).size > 1) || "kind";
    const rows = chart.kind === "map" ? chart.rows : [];
    let x = chart.x, y = chart.y;
    if (chart.kind === "scatter") {
      const first = columns.get(chart.x), second = columns.get(chart.y);
      for (let row = 0; row < data.rows; row++) if (first.values[row] !== null && second.values[row] !== null) rows.push(row);
      x = rows.map(row => first.values[row]);
      y = rows.map(row => second.values[row]);
    }
    const titles = chart.labels || [columns.get(chart.x), columns.get(chart.y)].map(column => `${column.label} (${column.unit})`);
    const options = BY().map(column => [column.key, `by ${column.label}`]).sort(one => one[0] === by ? -1 : 0);
    const figure = frame(chart, selector("colour", options, value => { by = value; redraw(); }));
    // Within one decade no power of ten may lie on the axis: plotly then chooses its own ticks.
    const positive = y.filter(value => value > 0), decades = Math.log10(Math.max(...positive)) - Math.log10(Math.min(...positive));
    const redraw = () => plot(chart, figure, points(rows, x, y, by), {
      xaxis: { title: { text: escape(titles[0]), font: { size: 11 } } },
      yaxis: { title: { text: escape(titles[1]), font: { size: 11 } }, type: chart.log ? "log" : "linear", exponentformat: "power", dtick: chart.log && decades > 2 ? 1 : undefined },
    });
    drawn.push({ figure, redraw });
    return figure;
  }

  function parity(chart) {
    const figure = frame(chart, make("span", { class: "note" }, chart.about));
    const redraw = () => {
      const low = Math.min(...chart.x, ...chart.y), high = Math.max(...chart.x, ...chart.y);
      plot(chart, figure, [
        { type: "scatter", mode: "lines", x: [low, high], y: [low, high], line: { color: OTHER, width: 1 }, hoverinfo: "skip", showlegend: false },
        { ...points(chart.rows, chart.x, chart.y, "")[0], showlegend: false, marker: { size: 4, opacity: 0.5, color: COLOURS[0] } },
      ], { xaxis: { title: { text: escape(chart.labels[0]) } }, yaxis: { title: { text: escape(chart.labels[1]) } } });
    };
    drawn.push({ figure, redraw });
    return figure;
  }

  function histogram(chart) {
    let by = Object.keys(chart.groups)[0];
    const edges = chart.log ? chart.edges.map(Math.log10) : chart.edges;
    const x = edges.slice(1).map((edge, i) => (edge + edges[i]) / 2), width = edges.slice(1).map((edge, i) => edge - edges[i]);
    const unit = chart.unit ? ` ${chart.unit}` : "";
    const options = Object.keys(chart.groups).map(key => [key, `by ${key}`]);
    const note = chart.about ? [make("span", { class: "note" }, chart.about)] : [];
    const figure = frame(chart, selector("groups", options, value => { by = value; redraw(); }), ...note);
    const redraw = () => {
      const names = Object.keys(chart.groups[by]);
      const traces = names.map((name, k) => ({
        type: "bar", x, width, y: chart.groups[by][name], name: escape(name), marker: { color: / others$/.test(name) ? OTHER : COLOURS[k % 8] },
        customdata: x.map((_, i) => [i, report.figure(chart.edges[i]), report.figure(chart.edges[i + 1])]),
        hovertemplate: `%{y:,} samples, %{customdata[1]} to %{customdata[2]}${escape(unit)}`,
      }));
      const decades = [];
      for (let k = Math.ceil(edges[0]); chart.log && k <= edges[edges.length - 1]; k++) decades.push(k);
      const ticks = decades.length > 1 ? { tickvals: decades, ticktext: decades.map(k => k < 4 && k > -4 ? String(+(10 ** k).toPrecision(1)) : `10<sup>${k}</sup>`) }
        : chart.log ? { tickvals: [0, 0.25, 0.5, 0.75, 1].map(f => edges[0] + f * (edges[edges.length - 1] - edges[0])) } : {};
      if (ticks.tickvals && !ticks.ticktext) ticks.ticktext = ticks.tickvals.map(value => report.figure(+(10 ** value).toPrecision(2)));
      plot(chart, figure, traces, {
        barmode: "stack", selectdirection: "h", showlegend: names.length > 1,
        xaxis: { title: { text: escape(chart.unit), standoff: 6 }, ...ticks, showgrid: false }, yaxis: { title: { text: "samples" } },
      });
    };
    drawn.push({ figure, redraw });
    return figure;
  }

  // -- drawing and events ---------------------------------------------------------------------------------

  function frame(chart, ...controls) {
    const id = "chart-" + (chart.id || chart.key).replace(/[^\w-]+/g, "-");
    return make("figure", { id, class: chart.kind === "histogram" ? null : "large" },
      make("figcaption", {}, make("span", {}, chart.title), ...controls), make("div", { class: "plot" }));
  }

  function plot(chart, figure, traces, more) {
    const target = figure.querySelector(".plot"), first = !target.layout;
    Plotly.react(target, traces, layout(chart, more), {
      displaylogo: false, responsive: true, displayModeBar: coarse || printing ? false : "hover",
      plotlyServerURL: "", showSendToCloud: false, showEditInChartStudio: false,  // nothing leaves the page
      modeBarButtons: [[chart.kind === "histogram" ? null : "lasso2d", "select2d", "zoom2d", "pan2d", "resetScale2d"].filter(Boolean)],
    });
    if (!first) return;
    target.on("plotly_click", event => {
      const point = event.points.find(one => one.customdata !== undefined);
      if (!point) return;
      if (chart.kind === "histogram") bins(chart, point.customdata[0], point.customdata[0]);
      else viewer.open(point.customdata);
    });
    target.on("plotly_selected", event => {
      if (!event) return;
      if (chart.kind === "histogram") {
        const chosen = event.points.map(point => point.customdata[0]);
        if (chosen.length) bins(chart, Math.min(...chosen), Math.max(...chosen));
        return;
      }
      const rows = [...new Set(event.points.map(point => point.customdata).filter(row => row !== undefined))];
      if (!rows.length) return;
      report.choose([{ key: "index", op: "rows", value: rows, label: `${rows.length} points of “${chart.title}”` }]);
      report.toList();
    });
  }

  function bins(chart, first, last) {
    report.choose([{ key: chart.key, op: "range", value: [chart.edges[first], chart.edges[last + 1]] }]);
    report.toList();
  }

  function build() {
    const places = { histogram: "histograms", map: "maps", scatter: "maps", parity: "parities" };
    for (const chart of data.charts) {
      const at = chart.key === "spread" ? "parities" : places[chart.kind];
      document.getElementById(at).append((chart.kind === "histogram" ? histogram : chart.kind === "parity" ? parity : scatter)(chart));
    }
    const observer = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) {
        observer.unobserve(entry.target);
        ready(drawn.find(one => one.figure === entry.target));
      }
    }, { rootMargin: "600px" });
    for (const one of drawn) observer.observe(one.figure);
    const again = () => { for (const one of drawn) if (one.done) one.redraw(); };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    if (location.hash === "#print") print(true);
  }

  function ready(one) {
    if (one.done) return;
    one.done = true;
    one.redraw();
  }

  function print(on) {
    if (printing === on) return;
    printing = on;
    document.documentElement.classList.toggle("printing", on);
    for (const one of drawn) {
      one.done = true;
      one.redraw();
    }
  }

  return { build, colour, escape };
})();
