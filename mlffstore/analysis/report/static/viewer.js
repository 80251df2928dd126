"use strict";
// The details of a structure: a 3D view with forces, cell and periodic images, and everything that is known of it.
const viewer = (() => {
  const { data, columns, make, text, figure, numbers, starts } = report;
  const positions = new Int16Array(report.bytes(data.structures.positions.data).buffer);
  const forces = new Map(Object.entries(data.structures.forces).map(([teacher, packed]) => {
    const first = new Map();
    let at = 0;
    packed.rows.forEach((row, k) => {
      first.set(row, [at, packed.scale[k]]);
      at += starts[row + 1] - starts[row];
    });
    return [teacher, { values: new Int16Array(report.bytes(packed.data).buffer), first }];
  }));
  const dialog = document.getElementById("details");
  const settings = { teacher: "", images: false, cell: true, style: "ball and stick" };
  const MOST_IMAGES = 3000;
  // One canvas for all structures: browsers allow few contexts of WebGL.
  const place = make("div", { class: "view" });
  let current = null, view = null, webgl = null;

  // -- data -----------------------------------------------------------------------------------------------

  function unpack(values, first, n, scale, middle = [0, 0, 0]) {
    const out = [];
    for (let i = 0; i < n; i++) out.push([0, 1, 2].map(k => {
      const value = values[3 * (first + i) + k];
      return value === -32768 ? NaN : value * scale + middle[k];
    }));
    return out;
  }

  function structure(row) {
    const n = starts[row + 1] - starts[row], cell = data.structures.cells[row];
    return {
      numbers: [...numbers.subarray(starts[row], starts[row + 1])],
      positions: unpack(positions, starts[row], n, data.structures.positions.scale[row], data.structures.middle.slice(3 * row, 3 * row + 3)),
      cell: cell && cell.every(value => value !== null) ? [cell.slice(0, 3), cell.slice(3, 6), cell.slice(6, 9)] : null,
      pbc: data.structures.pbc[row] || [0, 0, 0],
    };
  }

  function forcesOf(row, teacher) {
    const packed = forces.get(teacher), found = packed && packed.first.get(row);
    return found ? unpack(packed.values, found[0], starts[row + 1] - starts[row], found[1]) : null;
  }

  const symbol = z => data.symbols[z] || "X";
  const plus = (a, b, f = 1) => a.map((value, k) => value + f * b[k]);
  const finite = x => x.every(Number.isFinite);
  const vector = ([x, y, z]) => ({ x, y, z });

  function shifts(one) {
    const many = one.numbers.length * 27 > MOST_IMAGES;
    const range = k => one.pbc[k] ? (many ? [0, 1] : [-1, 0, 1]) : [0], out = [];
    for (const a of range(0)) for (const b of range(1)) for (const c of range(2)) {
      if (a || b || c) out.push(plus(plus(plus([0, 0, 0], one.cell[0], a), one.cell[1], b), one.cell[2], c));
    }
    return out;
  }

  function edges(cell) {
    const corner = k => [0, 1, 2].reduce((x, i) => k >> i & 1 ? plus(x, cell[i]) : x, [0, 0, 0]), out = [];
    for (let a = 0; a < 8; a++) for (const bit of [1, 2, 4]) if (!(a & bit)) out.push([corner(a), corner(a | bit)]);
    return out;
  }

  // -- pictures -------------------------------------------------------------------------------------------

  function draw3d(row) {
    const one = structure(row), shown = one.numbers.map((_, i) => i).filter(i => finite(one.positions[i]));
    view.clear();
    view.setBackgroundColor(charts.colour("--soft"));
    const jmol = { colorscheme: "Jmol" };  // as in the pictures
    const xyz = lines => `${lines.length}\n\n${lines.join("\n")}\n`;
    const line = (i, shift) => `${symbol(one.numbers[i])} ${plus(one.positions[i], shift).map(x => x.toFixed(4)).join(" ")}`;
    const style = opacity => settings.style === "space filling" ? { sphere: { scale: 0.9, opacity, ...jmol } }
      : { sphere: { scale: 0.3, opacity, ...jmol }, stick: { radius: 0.12, opacity, ...jmol } };
    const model = view.addModel(xyz(shown.map(i => line(i, [0, 0, 0]))), "xyz");
    model.setStyle({}, style(1));
    if (settings.images && one.cell) {  // a model of their own: 3Dmol draws each model with one opacity
      const images = view.addModel(xyz(shifts(one).flatMap(shift => shown.map(i => line(i, shift)))), "xyz");
      images.setStyle({}, style(0.4));
    }
    if (settings.cell && one.cell) for (const [from, to] of edges(one.cell)) {
      view.addLine({ start: vector(from), end: vector(to), color: charts.colour("--ink") });
    }
    const f = settings.teacher && forcesOf(row, settings.teacher);
    note.textContent = "";
    if (f) {
      const longest = Math.max(...f.filter(finite).map(x => Math.hypot(...x)), 1e-9), length = 2.5 / longest;
      for (const i of shown) if (finite(f[i]) && Math.hypot(...f[i]) > 0.02 * longest) view.addArrow({
        start: vector(one.positions[i]), end: vector(plus(one.positions[i], f[i], length)), radius: 0.07, radiusRatio: 2.2,
        mid: 0.75, color: "#D55E00",
      });
      note.textContent = `The longest arrow is ${figure(longest)} eV/Å.`;
    }
    const lost = one.numbers.length - shown.length;
    if (lost) note.textContent += lost === 1 ? " 1 atom has no finite position." : ` ${lost} atoms have no finite positions.`;
    view.setHoverable({ model }, true, atom => {
      const i = shown[atom.index], size = f ? `, |F| ${figure(Math.hypot(...f[i]))} eV/Å` : "";
      atom.label = view.addLabel(`${atom.elem} ${i}${size}`, {
        position: atom, fontSize: 12, backgroundColor: charts.colour("--paper"), fontColor: charts.colour("--ink"), backgroundOpacity: 0.9,
      });
    }, atom => { if (atom.label) view.removeLabel(atom.label); delete atom.label; });
    view.zoomTo({ model });
    if (settings.images && one.cell) view.zoom(0.6);
    view.render();
  }

  // A flat picture, where the browser has no WebGL.
  function draw2d(row) {
    const one = structure(row), space = "http://www.w3.org/2000/svg";
    const flat = ([x, y, z]) => [x + 0.25 * z, -(y * 0.97 + 0.2 * z), z];
    const shown = one.positions.map((x, i) => [i, ...flat(x)]).filter(x => finite(x)).sort((a, b) => a[3] - b[3]);
    const lines = one.cell ? edges(one.cell).map(pair => pair.map(flat)) : [];
    const all = [...shown.map(x => x.slice(1, 3)), ...lines.flat()], xs = all.map(x => x[0]), ys = all.map(x => x[1]);
    const box = [Math.min(...xs) - 1.5, Math.min(...ys) - 1.5, Math.max(...xs) - Math.min(...xs) + 3, Math.max(...ys) - Math.min(...ys) + 3];
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", box.join(" "));
    const draw = (tag, attributes) => {
      const element = document.createElementNS(space, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      svg.append(element);
    };
    for (const [a, b] of lines) draw("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: "currentColor", "stroke-width": 0.05 });
    for (const [i, x, y] of shown) {
      const [colour, radius] = data.elements[one.numbers[i]] || ["#ff00ff", 1];
      draw("circle", { cx: x, cy: y, r: 0.6 * radius, fill: colour, stroke: "#333", "stroke-width": 0.04 });
    }
    place.replaceChildren(svg);
    note.textContent = "The browser has no WebGL, so this is a flat picture.";
  }

  // -- the dialog -----------------------------------------------------------------------------------------

  const note = make("span", { class: "note" });

  function controls(row, redraw) {
    const labelled = [...forces.keys()].filter(teacher => forces.get(teacher).first.has(row));
    if (!labelled.includes(settings.teacher)) settings.teacher = labelled[0] || "";
    const out = [];
    if (labelled.length) out.push(make("label", {}, "forces of ", make("select", {
      id: "forces", onchange: event => { settings.teacher = event.target.value; redraw(); },
    }, ...[...labelled, ""].map(teacher => make("option", { value: teacher, selected: teacher === settings.teacher }, teacher || "none")))));
    out.push(make("label", {}, "style ", make("select", {
      onchange: event => { settings.style = event.target.value; redraw(); },
    }, ...["ball and stick", "space filling"].map(style => make("option", { selected: style === settings.style }, style)))));
    if (data.structures.cells[row]) for (const [name, label] of [["images", "periodic images"], ["cell", "cell"]]) {
      out.push(make("label", {}, make("input", {
        type: "checkbox", id: "show-" + name, checked: settings[name], onchange: event => { settings[name] = event.target.checked; redraw(); },
      }), " " + label));
    }
    return make("div", { class: "controls" }, ...out, note);
  }

  function facts(row, group, title) {
    const lines = data.columns.filter(column => column.group === group && column.values[row] !== null && column.key !== "index")
      .map(column => make("tr", {}, make("th", {}, title === group ? column.label : column.label.replace(`, ${title}`, "")),
        make("td", {}, text(column.key, row) + (column.unit ? ` ${column.unit}` : "") || "none")));
    return lines.length ? [make("h3", {}, title), make("table", {}, make("tbody", {}, ...lines))] : [];
  }

  function checks(row) {
    const flags = columns.get("flags"), bits = flags.values[row];
    const reason = columns.has("reason") && text("reason", row);
    if (reason) return [make("h3", {}, "rejected"), make("p", { class: "error" }, reason)];
    if (bits === null) return [];
    const failed = report.words(flags, bits);
    const list = failed.map(check => make("li", {}, make("button", {
      class: "go", onclick: () => { close(); report.choose([{ key: "flags", op: "has", value: check }]); report.toList(); },
    }, check.replaceAll("_", " "))));
    const spread = columns.get("spread"), apart = spread && spread.values[row] !== null
      ? make("p", {}, `Teachers differ by up to ${figure(spread.values[row])} eV/Å.`) : null;
    const severity = columns.get("severity").values[row];
    return [make("h3", {}, "checks"), failed.length ? make("ul", { class: severity === 2 ? "error" : "warning" }, ...list)
      : make("p", { class: "pass" }, "Fails no check."), ...(apart ? [apart] : [])];
  }

  function relatives(row) {
    const out = [];
    for (const [key, label] of [["content_hash", "the same structure"], ["root", "the same root"], ["formula", "the same formula"]]) {
      const column = columns.get(key), value = column.values[row];
      const n = column.values.filter(other => other === value).length - 1;
      if (n > 0) out.push(make("li", {}, make("button", {
        class: "go", onclick: () => { close(); report.choose([{ key, op: "equals", value }], "split"); report.toList(); },
      }, `${n} more listed with ${label}`)));
    }
    return out.length ? [make("h3", {}, "relatives"), make("ul", {}, ...out)] : [];
  }

  function open(row) {
    if (!(row >= 0 && row < data.rows)) return;
    current = row;
    const rows = report.state.rows, at = rows.indexOf(row);
    const step = (name, other) => make("button", { type: "button", disabled: other === undefined, onclick: () => open(other), "aria-label": name },
      name === "previous" ? "‹" : "›");
    const rejected = columns.get("set").values[row] === 1;
    const redraw = () => view ? draw3d(row) : draw2d(row);
    dialog.replaceChildren(
      make("div", { class: "bar" }, make("h2", {}, `${rejected ? "Rejected sample" : "Sample"} ${text("index", row)}: ${text("formula", row)}`),
        step("previous", rows[at - 1]), step("next", at < 0 ? rows[0] : rows[at + 1]),
        make("button", { type: "button", onclick: close, "aria-label": "close" }, "×")),
      make("div", { class: "two" }, make("div", { class: "left" }, place, controls(row, redraw)), make("div", { class: "facts" },
        ...checks(row), ...facts(row, "structure", "structure"), ...data.teachers.flatMap(teacher => facts(row, "teacher:" + teacher, teacher)),
        ...facts(row, "provenance", "provenance"), ...relatives(row))));
    if (!dialog.open) dialog.showModal();
    if (webgl === null) {
      webgl = hasWebgl();
      if (webgl) view = $3Dmol.createViewer(place, { backgroundColor: charts.colour("--soft"), antialias: true });
    } else if (view) view.resize();
    redraw();
    history.replaceState(null, "", rejected ? `#rejected-${text("index", row)}` : `#sample-${text("index", row)}`);
  }

  function hasWebgl() {
    const canvas = document.createElement("canvas"), context = canvas.getContext("webgl2") || canvas.getContext("webgl");
    const lose = context && context.getExtension("WEBGL_lose_context");
    if (lose) lose.loseContext();
    return Boolean(context);
  }

  function close() {
    dialog.close();
  }

  function build() {
    dialog.addEventListener("close", () => {
      dialog.replaceChildren();
      current = null;
      history.replaceState(null, "", location.pathname + location.search);
    });
    dialog.addEventListener("click", event => { if (event.target === dialog) close(); });
    dialog.addEventListener("keydown", event => {
      if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
      const rows = report.state.rows, at = rows.indexOf(current);
      const other = event.key === "ArrowRight" ? rows[at + 1] : event.key === "ArrowLeft" ? rows[at - 1] : undefined;
      if (other !== undefined) open(other);
    });
    const named = /^#(sample|rejected)-(\d+)$/.exec(location.hash);
    if (named) {
      const set = named[1] === "sample" ? 0 : 1, index = columns.get("index").values, sets = columns.get("set").values;
      open(index.findIndex((value, row) => value === +named[2] && sets[row] === set));
    }
  }

  return { open, build, structure, forcesOf };
})();
