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
    });
  }
})();
