"use strict";
// The data of the report, the list of structures with its filters, and tables that sort.
// All text from the store reaches the page through textContent.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = new Map(data.columns.map(column => [column.key, column]));
  const PAGE = 50;
  // Columns that the list shows at first.
  const shown = new Set(["index", "formula", "n_atoms", "kind", "split", "sampler", "flags", "spread"]);
  for (const teacher of data.teachers) shown.add("force_max:" + teacher);
  if (columns.has("reason")) shown.add("set").add("reason");
  const state = { filters: [], sort: "", down: false, page: 0, rows: [] };
  const listeners = [];

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter(child => child !== null && child !== undefined));
    return element;
  }

  function bytes(text) {
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
    return out;
  }

  const numbers = bytes(data.structures.numbers);
  const starts = data.structures.starts;

  // -- values ---------------------------------------------------------------------------------------------

  function words(column, bits) {
    return column.words.filter((_, k) => Math.floor(bits / 2 ** k) % 2 === 1);
  }

  function text(key, row) {
    const column = columns.get(key), value = column.values[row];
    if (value === null) return "";
    if (column.kind === "code") return column.words[value];
    if (column.kind === "flags") return words(column, value).map(word => word.replaceAll("_", " ")).join(", ");
    return column.kind === "number" ? figure(value) : value;
  }

  function figure(value) {
    if (value === null || value === undefined) return "";
    if (Number.isInteger(value)) return String(value);
    const size = Math.abs(value);
    return size < 1e-3 || size >= 1e6 ? value.toExponential(2) : String(+value.toPrecision(5));
  }

  // -- filters --------------------------------------------------------------------------------------------

  // A filter is {key, op, value, label?}; `op` is one of those below.
  const tests = {
    is: (column, value) => {
      const code = column.words.indexOf(value);
      return row => column.values[row] === code;
    },
    has: (column, value) => {
      const bit = 2 ** column.words.indexOf(value);
      return row => Math.floor((column.values[row] || 0) / bit) % 2 === 1;
    },
    range: (column, [low, high]) => row => {
      const value = column.values[row];
      return value !== null && value >= low && value <= high;
    },
    known: column => row => column.values[row] !== null,
    contains: (column, value) => row => text(column.key, row).toLowerCase().includes(value.toLowerCase()),
    equals: (column, value) => row => column.values[row] === value,
    element: (column, value) => {
      const z = data.symbols.indexOf(value);
      return row => numbers.subarray(starts[row], starts[row + 1]).includes(z);
    },
    rows: (column, value) => {
      const chosen = new Set(value);
      return row => chosen.has(row);
    },
    any: (_, value) => {
      const wanted = value.toLowerCase();
      const keys = ["index", "formula", "kind", "sampler", "source", "reason"].filter(key => columns.has(key));
      return row => keys.some(key => text(key, row).toLowerCase().includes(wanted));
    },
  };

  function describe(filter) {
    if (filter.label) return filter.label;
    const column = columns.get(filter.key), name = column ? column.label : "";
    if (filter.op === "range") {
      const [low, high] = filter.value;
      if (low === -Infinity) return `${name} ≤ ${figure(high)}`;
      return high === Infinity ? `${name} ≥ ${figure(low)}` : `${name} ${figure(low)} to ${figure(high)}`;
    }
    if (filter.op === "known") return `with ${name}`;
    if (filter.op === "element") return `with ${filter.value}`;
    if (filter.op === "any") return `“${filter.value}”`;
    if (filter.op === "has") return `fails ${filter.value.replaceAll("_", " ")}`;
    return `${name}: ${filter.value}`;
  }

  function apply() {
    const checks = state.filters.map(filter => tests[filter.op](columns.get(filter.key), filter.value));
    state.rows = [];
    for (let row = 0; row < data.rows; row++) if (checks.every(check => check(row))) state.rows.push(row);
    const column = columns.get(state.sort);
    if (column) {
      const key = column.kind === "number" ? row => column.values[row]
        : column.kind === "flags" ? row => words(column, column.values[row] || 0).length || null : row => text(state.sort, row) || null;
      const sign = state.down ? -1 : 1;
      state.rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b;  // missing values last, either way
        return sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y) || a - b;
      });
    }
    state.page = 0;
    draw();
    listeners.forEach(listener => listener(state));
  }

  function choose(filters, sort) {
    state.filters = filters.filter(filter => tests[filter.op] && (columns.has(filter.key) || !filter.key));
    if (sort && columns.has(sort)) [state.sort, state.down] = [sort, true];
    apply();
  }

  function add(filter) {
    choose([...state.filters.filter(other => other.key !== filter.key || other.op !== filter.op), filter]);
  }

  function toList() {
    document.getElementById("structures").scrollIntoView({ block: "start" });
  }

  // -- the list -------------------------------------------------------------------------------------------

  const place = document.getElementById("explorer");
  const chips = make("div", { class: "chips" }), count = make("span", { class: "count", role: "status" });
  const head = make("tr"), body = make("tbody"), pages = make("div", { class: "pages" });

  function controls() {
    const search = make("input", {
      type: "search", id: "search", placeholder: "formula, sampler, source, index …", "aria-label": "search the structures",
      oninput: () => search.value ? add({ key: "", op: "any", value: search.value }) : choose(state.filters.filter(f => f.op !== "any")),
    });
    const lists = ["set", "split", "kind", "severity"].filter(key => columns.has(key)).map(key => {
      const column = columns.get(key);
      const used = column.words.filter((_, code) => column.values.includes(code));
      if (used.length < 2) return null;
      return make("select", {
        "aria-label": column.label, "data-key": key,
        onchange: event => event.target.value ? add({ key, op: "is", value: event.target.value })
          : choose(state.filters.filter(filter => filter.key !== key)),
      }, make("option", { value: "" }, "any " + column.label), ...used.map(word => make("option", { value: word }, word)));
    });
    const flags = columns.get("flags");
    const failing = flags.words.filter((_, k) => flags.values.some(bits => Math.floor((bits || 0) / 2 ** k) % 2 === 1));
    if (failing.length) lists.push(make("select", {
      "aria-label": "failed check", "data-key": "flags",
      onchange: event => event.target.value ? add({ key: "flags", op: "has", value: event.target.value })
        : choose(state.filters.filter(filter => filter.key !== "flags")),
    }, make("option", { value: "" }, "any check"), ...failing.map(word => make("option", { value: word }, word.replaceAll("_", " ")))));
    return make("div", { class: "controls" }, search, ...lists, numeric(),
      make("button", { type: "button", onclick: save }, "CSV"), chooser());
  }

  function numeric() {
    const column = make("select", { "aria-label": "figure" }, make("option", { value: "" }, "a figure between …"),
      ...data.columns.filter(one => one.kind === "number").map(one => make("option", { value: one.key }, one.label)));
    const low = make("input", { type: "number", step: "any", placeholder: "from", "aria-label": "from" });
    const high = make("input", { type: "number", step: "any", placeholder: "to", "aria-label": "to" });
    const change = () => {
      low.hidden = high.hidden = !column.value;
      if (!column.value || (low.value === "" && high.value === "")) return;
      add({ key: column.value, op: "range", value: [low.value === "" ? -Infinity : +low.value, high.value === "" ? Infinity : +high.value] });
    };
    low.hidden = high.hidden = true;
    for (const one of [column, low, high]) one.addEventListener("change", change);
    return make("span", { class: "between" }, column, low, high);
  }

  function chooser() {
    const boxes = data.columns.map(column => make("label", {}, make("input", {
      type: "checkbox", checked: shown.has(column.key),
      onchange: event => { event.target.checked ? shown.add(column.key) : shown.delete(column.key); draw(); },
    }), " " + column.label));
    return make("details", { class: "chooser" }, make("summary", {}, "columns"), make("div", {}, ...boxes));
  }

  function save() {
    const quote = value => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const lines = [data.columns.map(column => quote(column.key)).join(",")];
    for (const row of state.rows) lines.push(data.columns.map(column =>
      quote(column.kind === "number" ? String(column.values[row] ?? "") : text(column.key, row))).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    make("a", { href: url, download: "structures.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function draw() {
    chips.replaceChildren(...state.filters.map(filter => make("button", {
      type: "button", class: "chip", title: "remove this filter",
      onclick: () => choose(state.filters.filter(other => other !== filter)),
    }, describe(filter) + " ×")), ...(state.filters.length > 1
      ? [make("button", { type: "button", class: "chip", onclick: () => choose([]) }, "remove all")] : []));
    for (const list of place.querySelectorAll("select[data-key]")) {
      const filter = state.filters.find(one => one.key === list.dataset.key && ["is", "has"].includes(one.op));
      list.value = filter ? filter.value : "";
    }
    const search = place.querySelector("#search"), any = state.filters.find(filter => filter.op === "any");
    if (search && document.activeElement !== search) search.value = any ? any.value : "";
    count.textContent = `${state.rows.length.toLocaleString("en")} of ${data.rows.toLocaleString("en")} listed structures`;
    const visible = data.columns.filter(column => shown.has(column.key));
    head.replaceChildren(...visible.map(column => make("th", {
      "aria-sort": state.sort === column.key ? (state.down ? "descending" : "ascending") : null,
    }, make("button", {
      type: "button", onclick: () => {
        state.down = state.sort === column.key ? !state.down : column.kind === "flags" || column.unit === "eV/Å";
        state.sort = column.key;
        apply();
      },
    }, column.label + (column.unit ? `, ${column.unit}` : "")))));
    const from = state.page * PAGE;
    body.replaceChildren(...state.rows.slice(from, from + PAGE).map(row => make("tr", {
      "data-row": row, tabindex: 0, class: columns.get("severity").values[row] === 2 ? "bad" : columns.get("set").values[row] ? "odd" : null,
    }, ...visible.map(column => make("td", { class: column.kind === "number" ? "number" : null }, text(column.key, row))))));
    const last = Math.max(Math.ceil(state.rows.length / PAGE) - 1, 0);
    const step = (name, page) => make("button", {
      type: "button", disabled: page < 0 || page > last, onclick: () => { state.page = page; draw(); },
    }, name);
    pages.replaceChildren(...(last ? [step("‹ back", state.page - 1),
      make("span", {}, `page ${state.page + 1} of ${last + 1}`), step("next ›", state.page + 1)] : []));
  }

  function build() {
    place.append(controls(), make("div", { class: "line" }, count, chips),
      make("div", { class: "wide list" }, make("table", { class: "rows" }, make("thead", {}, head), body)), pages);
    const open = event => {
      const line = event.target.closest("tr[data-row]");
      if (line && (event.type === "click" || event.key === "Enter")) viewer.open(+line.dataset.row);
    };
    body.addEventListener("click", open);
    body.addEventListener("keydown", open);
    apply();
  }

  // -- links and other tables -----------------------------------------------------------------------------

  function links() {
    document.addEventListener("click", event => {
      const target = event.target.closest("[data-filter],[data-open]");
      if (!target) return;
      if (target.dataset.open !== undefined) return viewer.open(+target.dataset.open);
      choose([JSON.parse(target.dataset.filter)], target.dataset.sort);
      toList();
    });
  }

  function sortable(table) {
    const lines = [...table.tBodies[0].rows];
    if (lines.length < 2) return;
    const value = (line, k) => {
      const text = line.cells[k].textContent.trim(), number = parseFloat(text.replaceAll(",", ""));
      return /^[-+±\d.]/.test(text) && !Number.isNaN(number) ? number : text;
    };
    [...table.tHead.rows[0].cells].forEach((cell, k) => {
      const name = cell.textContent;
      const sort = make("button", { type: "button", onclick: () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const order = [...lines].sort((a, b) => {
          const x = value(a, k), y = value(b, k);
          const both = typeof x === "number" && typeof y === "number";
          return (down ? -1 : 1) * (both ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
        });
        table.tBodies[0].append(...order);
      } }, name);
      cell.replaceChildren(sort);
    });
    if (lines.length > 8) table.parentElement.before(make("input", {
      type: "search", class: "narrow", placeholder: "filter this table", "aria-label": "filter this table",
      oninput: event => {
        const wanted = event.target.value.toLowerCase();
        for (const line of lines) line.hidden = !line.textContent.toLowerCase().includes(wanted);
      },
    }));
  }

  return {
    data, columns, state, make, bytes, numbers, starts, words, text, figure, add, choose, toList, build, links, sortable,
    changed: listener => listeners.push(listener),
  };
})();
