"use strict";
// Draws the plots and sorts the tables. Runs after the plotting library, in the same page.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const font = getComputedStyle(document.body).fontFamily;
  const config = {
    font,
    background: null,
    view: { stroke: null },
    axis: {
      labelColor: "var(--muted)",
      titleColor: "var(--muted)",
      gridColor: "var(--line)",
      domainColor: "var(--line)",
      tickColor: "var(--line)",
      labelFontSize: 11.5,
      titleFontSize: 11.5,
      titleFontWeight: 400,
      titlePadding: 8,
    },
    axisY: { titleAngle: -90 },
  };
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // no evaluation of text as code, which the page's policy forbids
    config,
    tooltip: { disableDefaultStyle: true },
  };
  const views = Object.entries(specs).map(([name, spec]) =>
    vegaEmbed(document.getElementById(`plot-${name}`), spec, options).then((result) => {
      result.view.container().closest("figure").dataset.drawn = "true";
    })
  );
  Promise.all(views).then(() => { document.documentElement.dataset.ready = "true"; });
  const refit = () => window.dispatchEvent(new Event("resize"));
  window.addEventListener("beforeprint", refit);
  window.addEventListener("afterprint", refit);

  // A table says by a shade at its edge that there is more to the right.
  const cue = (box) => {
    box.toggleAttribute("data-more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
  };
  const boxes = [...document.querySelectorAll(".scroll, .roll")];
  for (const box of boxes) box.addEventListener("scroll", () => cue(box), { passive: true });
  const cues = () => boxes.forEach(cue);
  window.addEventListener("resize", cues);
  Promise.all(views).then(cues);

  // A long table shows its first rows; a search looks in all of them.
  const FIRST = 15;
  const states = new Map();
  const show = (name) => {
    const table = document.getElementById(name);
    const state = states.get(name);
    const rows = [...table.tBodies[0].rows];
    const found = rows.filter((row) => row.dataset.find.toLowerCase().includes(state.text));
    const shown = new Set(state.all ? found : found.slice(0, FIRST));
    for (const row of rows) row.hidden = !shown.has(row);
    const what = found.length === rows.length ? "" : ` found of ${rows.length}`;
    state.count.textContent = `${shown.size} of ${found.length} clients${what}`;
    state.more.hidden = found.length <= FIRST;
    state.more.textContent = state.all ? `Show the first ${FIRST}` : `Show all ${found.length}`;
    cues();
  };
  for (const input of document.querySelectorAll("input[data-table]")) {
    const name = input.dataset.table;
    const more = document.querySelector(`[data-all="${name}"]`);
    const count = document.querySelector(`[data-count="${name}"]`);
    states.set(name, { text: "", all: false, more, count });
    input.addEventListener("input", () => { states.get(name).text = input.value.trim().toLowerCase(); show(name); });
    more.addEventListener("click", () => { states.get(name).all = !states.get(name).all; show(name); });
    show(name);
  }
  let before = [];
  window.addEventListener("beforeprint", () => {
    before = [...states].map(([name, state]) => [name, state.all]);
    for (const [name, state] of states) { state.all = true; show(name); }
  });
  window.addEventListener("afterprint", () => {
    for (const [name, all] of before) { states.get(name).all = all; show(name); }
  });

  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });
  for (const button of document.querySelectorAll("th > button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) =>
        compare(value(a, head.cellIndex), value(b, head.cellIndex)) * (down ? -1 : 1)
      );
      body.append(...rows);
      const name = head.closest("table").id;
      if (states.has(name)) show(name);
    });
  }
})();
