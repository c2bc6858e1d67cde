"use strict";
// Draws the plots, sorts and searches the tables, and keeps a live page up to date. Runs after the
// plotting library, in the same page.
(() => {
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
      labelFontSize: 12.5,
      titleFontSize: 12.5,
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
  const FIRST = 15; // rows of a long table, until all are asked for
  const kept = new Map(); // what was searched for in a table, and whether all its rows are shown
  let boxes = [];
  let tables = new Map();
  let drawn = [];

  // A table says by a shade at its edge that there is more to the right.
  const cue = (box) => {
    box.toggleAttribute("data-more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
  };
  const cues = () => boxes.forEach(cue);

  const plot = () => {
    for (const view of drawn) view.finalize();
    drawn = [];
    const specs = JSON.parse(document.getElementById("specs").textContent);
    return Promise.all(Object.entries(specs).map(([name, spec]) =>
      vegaEmbed(document.getElementById(`plot-${name}`), spec, options).then((result) => {
        drawn.push(result.view);
        result.view.container().closest("figure").dataset.drawn = "true";
      })
    ));
  };

  const show = (name) => {
    const { table, count, more } = tables.get(name);
    const state = kept.get(name);
    const rows = [...table.tBodies[0].rows];
    const found = rows.filter((row) => row.dataset.find.toLowerCase().includes(state.text));
    const shown = new Set(state.all ? found : found.slice(0, FIRST));
    for (const row of rows) row.hidden = !shown.has(row);
    const what = found.length === rows.length ? "" : ` found of ${rows.length}`;
    count.textContent = `${shown.size} of ${found.length} clients${what}`;
    more.hidden = found.length <= FIRST;
    more.textContent = state.all ? `Show the first ${FIRST}` : `Show all ${found.length}`;
    cues();
  };

  const search = () => {
    tables = new Map();
    for (const input of document.querySelectorAll("input[data-table]")) {
      const name = input.dataset.table;
      const more = document.querySelector(`[data-all="${name}"]`);
      const count = document.querySelector(`[data-count="${name}"]`);
      tables.set(name, { table: document.getElementById(name), count, more });
      if (!kept.has(name)) kept.set(name, { text: "", all: false });
      const state = kept.get(name);
      input.value = state.text;
      input.addEventListener("input", () => { state.text = input.value.trim().toLowerCase(); show(name); });
      more.addEventListener("click", () => { state.all = !state.all; show(name); });
      show(name);
    }
  };

  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });
  const sortable = () => {
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
        if (tables.has(name)) show(name);
      });
    }
  };

  const draw = () => {
    boxes = [...document.querySelectorAll(".scroll, .roll")];
    for (const box of boxes) box.addEventListener("scroll", () => cue(box), { passive: true });
    sortable();
    search();
    return plot().then(cues);
  };

  window.addEventListener("resize", cues);
  const refit = () => window.dispatchEvent(new Event("resize"));
  let before = [];
  window.addEventListener("beforeprint", () => {
    before = [...kept].map(([name, state]) => [name, state.all]);
    for (const [name, state] of kept) { state.all = true; show(name); }
    refit();
  });
  window.addEventListener("afterprint", () => {
    for (const [name, all] of before) { kept.get(name).all = all; show(name); }
    refit();
  });

  // The live page: what the server says every second, and the report whenever it has recorded more.
  const live = () => {
    const panel = () => document.getElementById("live");
    const number = new Intl.NumberFormat("en").format;
    let state = null;
    const tell = () => {
      if (!panel() || !state || !state.clients) return;
      document.getElementById("live-now").textContent = state.now;
      const map = document.getElementById("live-map");
      map.replaceChildren(...state.clients.map((client) => {
        const mark = document.createElement("li");
        mark.className = client.state;
        mark.textContent = client.name;
        mark.title = `${client.name}: ${client.state}, ${number(client.up)} B up, ` +
          `${number(client.down)} B down, heard ${client.heard}` +
          (client.loss === null || client.loss === undefined ? "" : `, loss ${client.loss.toFixed(3)}`);
        return mark;
      }));
      const counts = new Map();
      for (const client of state.clients) counts.set(client.state, (counts.get(client.state) || 0) + 1);
      const keys = [...counts].map(([name, count]) => {
        const key = document.createElement("span");
        key.className = `key ${name}`;
        key.textContent = `${count} ${name}`;
        return key;
      });
      const bytes = `${number(state.up)} B up, ${number(state.down)} B down so far`;
      document.getElementById("live-legend").replaceChildren(...keys, state.note || bytes);
    };
    let busy = false;
    let again = false;
    const refresh = async () => {
      if (busy) { again = true; return; }
      busy = true;
      try {
        const answer = await fetch("/", { cache: "no-store" });
        if (answer.ok) {
          const made = new DOMParser().parseFromString(await answer.text(), "text/html");
          const open = [...document.querySelectorAll("details")].map((one) => one.open);
          const top = window.scrollY;
          const focus = document.activeElement && document.activeElement.dataset.table;
          document.title = made.title;
          document.getElementById("specs").textContent = made.getElementById("specs").textContent;
          document.querySelector("main").replaceChildren(...made.querySelector("main").childNodes);
          [...document.querySelectorAll("details")].forEach((one, place) => { one.open = Boolean(open[place]); });
          tell();
          await draw();
          window.scrollTo(0, top);
          if (focus) document.querySelector(`input[data-table="${focus}"]`)?.focus();
          document.documentElement.dataset.refreshed = String(1 + Number(document.documentElement.dataset.refreshed || 0));
          link("connected");
        }
      } catch {
        link(AWAY); // The events come again by themselves, and with them the page.
      } finally {
        busy = false;
        if (again) { again = false; refresh(); }
      }
    };
    const AWAY = "the server is away; looking for it";
    const link = (text) => {
      const place = document.getElementById("live-link");
      if (place) place.textContent = text;
    };
    const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    const follow = () => {
      const events = new EventSource("/events");
      events.addEventListener("open", () => { link("connected"); refresh(); });
      events.addEventListener("error", () => link(AWAY));
      events.addEventListener("state", (event) => { state = JSON.parse(event.data); tell(); });
      events.addEventListener("changed", refresh);
      // The server waits for its readers to have seen how the run ended; one that is started again is found.
      events.addEventListener("end", async () => {
        while (busy) await pause(100);
        await refresh();
        events.close();
        link(AWAY);
        await pause(5000);
        follow();
      }, { once: true });
    };
    follow();
  };

  draw().then(() => {
    document.documentElement.dataset.ready = "true";
    if (document.getElementById("live")) live();
  });
})();
