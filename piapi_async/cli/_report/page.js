"use strict";
// The page shows the entries of #data (see _entries.py).  Only the cards near the window are in the
// document, so a hundred thousand entries scroll as well as ten.  Every text is set as text, never as
// markup.

(() => {
  const $ = (id) => document.getElementById(id);
  const entries = JSON.parse($("data").textContent);
  const feed = $("feed");
  const STATES = ["done", "failed", "cancelled", "unknown", "unsaved", "open"];
  const WORST_FIRST = ["unknown", "unsaved", "failed", "cancelled", "open", "done"];
  const MARKS = { failed: "✕", cancelled: "⊘", unknown: "?", unsaved: "!", open: "…", done: "✓" };
  const OVERSCAN = 2; // rows above and below the window

  // -- elements ---------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === false || value === null) continue;
      if (name === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
      else if (name === "text") element.textContent = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // A link that leads anywhere but to a file or a site is none.
  function safe(url) {
    try {
      return ["http:", "https:", "file:"].includes(new URL(url, location.href).protocol) ? url : "";
    } catch {
      return "";
    }
  }

  const outward = (url, text) => make("a", { href: safe(url), target: "_blank", rel: "noopener noreferrer", text });

  // -- words ------------------------------------------------------------------------------------

  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
  const cost = ([amount, unit], format = number) => `${format.format(amount)} ${unit}`.trim();
  const several = (count, one, many) => `${number.format(count)} ${count === 1 ? one : many}`;

  function duration(seconds) {
    const whole = Math.round(seconds);
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  }

  const results = (entry) => (entry.media || []).filter((file) => !file.role);
  const quadrants = (entry) => results(entry).filter((file) => file.quadrant).sort((a, b) => a.quadrant - b.quadrant);
  const kindOf = (entry) => results(entry)[0]?.kind || (entry.words ? "text" : "none");
  const title = (entry) => entry.prompt || entry.words || entry.key || entry.id || `Line ${entry.line}`;

  function describe(entry) {
    const parts = [`Line ${entry.line}`, entry.verb, entry.state, title(entry).slice(0, 160)];
    if (entry.error) parts.push(entry.error.slice(0, 160));
    if (entry.cost) parts.push(cost(entry.cost));
    return parts.filter(Boolean).join(", ");
  }

  // -- what is chosen -----------------------------------------------------------------------------

  // A choice is "entry:what"; the order of choosing is that of the exported lines.
  const store = `piapi-report ${entries.length} ${entries[0]?.id || ""} ${entries.at(-1)?.id || ""}`;
  const chosen = new Set();
  let mark = Array.from(crypto.getRandomValues(new Uint8Array(3)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const kept = JSON.parse(sessionStorage.getItem(store) || "null");
    if (kept) {
      mark = kept.mark;
      kept.chosen.forEach((choice) => chosen.add(choice));
    }
  } catch {
    // no storage for files here: a reload forgets
  }

  function toggle(index, what) {
    const choice = `${index}:${what}`;
    if (!chosen.delete(choice)) chosen.add(choice);
    chosenChanged();
    refresh(index);
  }

  // What `r` means: the grid anew, else the same request once more.
  function anew(entry) {
    if (entry.actions?.reroll) return "reroll";
    return entry.actions?.again ? "again" : "";
  }

  function chosenChanged() {
    const counts = { upscale: 0, reroll: 0, again: 0 };
    for (const choice of chosen) counts[lineOf(choice).what] += 1;
    const words = [
      counts.upscale && several(counts.upscale, "upscale", "upscales"),
      counts.reroll && several(counts.reroll, "reroll", "rerolls"),
      counts.again && `${number.format(counts.again)} again`,
    ].filter(Boolean);
    $("chosen").textContent = words.join(", ");
    $("tray").hidden = !chosen.size;
    try {
      sessionStorage.setItem(store, JSON.stringify({ mark, chosen: [...chosen] }));
    } catch {
      // as above
    }
  }

  // An upscale is wanted once, so its key is always the same.  Rerolls and repeats of one page have
  // keys of this page: exported twice, they are still paid for once.
  function lineOf(choice) {
    const [index, word] = choice.split(":");
    const entry = entries[index];
    const { system = "" } = entry.actions || {};
    if (word === "again") {
      const key = `again ${entry.key || entry.id || `line ${entry.line}`} ${mark}`;
      return { what: "again", text: `${entry.request.slice(0, -1)}, "key": ${JSON.stringify(key)}}` };
    }
    if (word === "reroll") {
      const line = { verb: `${system}reroll`, origin_task_id: entry.id, key: `reroll ${entry.id} ${mark}` };
      return { what: "reroll", text: JSON.stringify(line) };
    }
    const line = { verb: `${system}upscale`, origin_task_id: entry.id, index: Number(word), key: `upscale ${entry.id} ${word}` };
    return { what: "upscale", text: JSON.stringify(line) };
  }

  const exported = () => [...chosen].map((choice) => `${lineOf(choice).text}\n`).join("");

  // -- cards --------------------------------------------------------------------------------------

  function picture(file, alt) {
    const image = make("img", { src: safe(file.at), alt, loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
    image.addEventListener("error", () => {
      if (file.link && image.getAttribute("src") !== file.link && safe(file.link)) image.src = file.link;
      else image.classList.add("gone");
    });
    return image;
  }

  function player(file, poster) {
    const stillThere = poster && (poster.saved || !file.saved); // else its link may have expired
    const media = make(file.kind === "audio" ? "audio" : "video", {
      src: safe(file.at),
      controls: true,
      preload: "metadata",
      poster: stillThere && safe(poster.at),
      "aria-label": file.kind,
    });
    media.addEventListener("click", (event) => event.stopPropagation());
    media.addEventListener("keydown", (event) => event.stopPropagation());
    return media;
  }

  function taker(index, entry, quadrant) {
    if (!entry.actions?.upscale?.includes(quadrant)) return null;
    return make("button", {
      type: "button",
      class: "take",
      tabindex: "-1",
      "aria-pressed": String(chosen.has(`${index}:${quadrant}`)),
      "aria-label": `Upscale picture ${quadrant}`,
      text: `U${quadrant}`,
      on: {
        click: (event) => {
          event.stopPropagation();
          toggle(index, String(quadrant));
        },
      },
    });
  }

  function again(index, entry) {
    const what = anew(entry);
    if (!what) return null;
    return make("button", {
      type: "button",
      class: "again",
      tabindex: "-1",
      "aria-pressed": String(chosen.has(`${index}:${what}`)),
      title: what === "reroll" ? "Draw this grid anew" : "Send the same request again",
      text: what === "reroll" ? "Reroll" : "Again",
      on: {
        click: (event) => {
          event.stopPropagation();
          toggle(index, what);
        },
      },
    });
  }

  function quarters(index, entry) {
    return quadrants(entry).map((file) => {
      const taken = chosen.has(`${index}:${file.quadrant}`);
      const alt = `Picture ${file.quadrant} of: ${title(entry).slice(0, 120)}`;
      return make("div", { class: taken ? "taken" : "" }, picture(file, alt), taker(index, entry, file.quadrant));
    });
  }

  function silent(entry) {
    const why = entry.error || (entry.state === "open" ? "The task goes on." : entry.status || "");
    return make(
      "div",
      { class: "silent" },
      make("span", { class: "mark", text: MARKS[entry.state] || "·", "aria-hidden": "true" }),
      make("span", { class: "why", text: why }),
    );
  }

  function stage(index, entry) {
    const files = results(entry);
    const cover = (entry.media || []).find((file) => file.role === "cover" && file.kind === "image");
    if (!files.length && entry.words && entry.state === "done") return make("div", { class: "wordy", text: entry.words });
    if (!files.length) return silent(entry);
    if (quadrants(entry).length === 4) return make("div", { class: "quads" }, ...quarters(index, entry));

    const images = files.filter((file) => file.kind === "image");
    if (images.length) return picture(images[0], title(entry).slice(0, 160));
    const videos = files.filter((file) => file.kind === "video");
    if (videos.length) return player(videos[0], cover);
    const sounds = files.filter((file) => file.kind === "audio");
    if (sounds.length) return make("div", { class: "sounds" }, ...sounds.slice(0, 3).map((file) => player(file)));
    return make("div", { class: "files" }, ...files.slice(0, 4).map(fileLink));
  }

  function fileLink(file) {
    const name = (file.saved || file.link || "").split(/[?#]/)[0].split(/[\\/]/).pop() || "file";
    const link = outward(file.at, file.kind === "model" ? `3-D: ${name}` : name);
    link.addEventListener("click", (event) => event.stopPropagation());
    return link;
  }

  function card(index, place) {
    const entry = entries[index];
    const picked = [...chosen].some((choice) => choice.startsWith(`${index}:`));
    const known = [entry.state !== "done" && entry.state, entry.cost && cost(entry.cost, short), entry.seconds && duration(entry.seconds)];
    const facts = [
      make("span", { class: "dot", "aria-hidden": "true" }),
      make("span", { class: "known", text: known.filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0")).join(" · ") || entry.verb || entry.state }),
    ];
    const article = make(
      "article",
      {
        class: `card ${entry.state}${picked ? " picked" : ""}`,
        tabindex: index === active ? "0" : "-1",
        "aria-label": describe(entry),
        "aria-posinset": String(place + 1),
        "aria-setsize": String(shown.length),
        "data-index": String(index),
        on: { focus: () => setActive(index) },
      },
      make("div", { class: "stage", on: { click: () => open(index) } }, stage(index, entry)),
      make("div", { class: "about" },
        make("p", { class: "prompt", text: title(entry), title: title(entry).slice(0, 600) }),
        make("div", { class: "facts" }, ...facts, again(index, entry))),
    );
    return article;
  }

  // -- only what is near the window -------------------------------------------------------------------

  let shown = entries.map((_, index) => index);
  let active = shown[0] ?? -1; // the entry that the Tab key comes to
  let layout = { columns: 1, width: 0, height: 0, gap: 0 };
  const cards = new Map(); // index -> its element
  let asked = false;

  function measure() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => Number.parseFloat(style.getPropertyValue(name));
    const gap = read("--gap");
    const columns = Math.max(1, Math.floor((feed.clientWidth + gap) / (read("--least") + gap)));
    const width = (feed.clientWidth - gap * (columns - 1)) / columns;
    layout = { columns, width, height: Math.round(width) + read("--text"), gap };
    const rows = Math.ceil(shown.length / columns);
    feed.style.height = `${Math.max(0, rows * (layout.height + gap) - gap)}px`;
  }

  function place(element, position) {
    const column = position % layout.columns;
    const row = Math.floor(position / layout.columns);
    const x = column * (layout.width + layout.gap);
    element.style.width = `${layout.width}px`;
    element.style.height = `${layout.height}px`;
    element.style.transform = `translate(${x}px, ${row * (layout.height + layout.gap)}px)`;
  }

  function render() {
    asked = false;
    const step = layout.height + layout.gap;
    const top = -feed.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / step) - OVERSCAN) * layout.columns;
    const last = Math.min(shown.length, (Math.ceil((top + innerHeight) / step) + OVERSCAN) * layout.columns);

    const wanted = new Map();
    for (let position = first; position < last; position += 1) wanted.set(shown[position], position);
    const focused = document.activeElement?.closest?.(".card");
    for (const [index, element] of cards) {
      if (wanted.has(index) || element === focused) continue; // the focus is not lost by scrolling
      element.remove();
      cards.delete(index);
    }
    for (const [index, position] of wanted) {
      let element = cards.get(index);
      if (!element) {
        element = card(index, position);
        cards.set(index, element);
        feed.append(element);
      }
      place(element, position);
    }
  }

  function soon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(render);
  }

  function renderAnew() {
    for (const element of cards.values()) element.remove();
    cards.clear();
    measure();
    render();
  }

  function refresh(index) {
    const old = cards.get(index);
    if (!old) return;
    const position = shown.indexOf(index);
    const had = old.contains(document.activeElement);
    const element = card(index, position);
    place(element, position);
    old.replaceWith(element);
    cards.set(index, element);
    if (had) element.focus({ preventScroll: true });
    if ($("detail").open) open(index);
  }

  function setActive(index) {
    if (index === active) return;
    cards.get(active)?.setAttribute("tabindex", "-1");
    active = index;
    cards.get(active)?.setAttribute("tabindex", "0");
  }

  function goTo(position) {
    if (!shown.length) return;
    const at = Math.min(shown.length - 1, Math.max(0, position));
    const step = layout.height + layout.gap;
    const top = feed.getBoundingClientRect().top + scrollY + Math.floor(at / layout.columns) * step;
    const bar = getComputedStyle(document.querySelector(".tools")).position === "sticky" ? document.querySelector(".tools").offsetHeight : 0;
    if (top - bar - layout.gap < scrollY) scrollTo(0, Math.max(0, top - bar - layout.gap));
    else if (top + layout.height + layout.gap > scrollY + innerHeight) scrollTo(0, top + layout.height + layout.gap - innerHeight);
    setActive(shown[at]);
    render();
    cards.get(shown[at])?.focus({ preventScroll: true });
  }

  function firstInView() {
    const above = Math.max(0, -feed.getBoundingClientRect().top);
    return Math.ceil(above / (layout.height + layout.gap)) * layout.columns;
  }

  // -- filter, search, order --------------------------------------------------------------------------

  const MINTED = /^[0-9a-f]{32}-/; // a key that nobody chose
  const text = (...parts) => parts.filter(Boolean).join("\n").toLowerCase();
  const haystacks = entries.map((entry) =>
    text(entry.prompt, entry.verb, entry.error, entry.kind, entry.words, entry.extra, !MINTED.test(entry.key) && entry.key),
  );
  const names = entries.map((entry) => text(entry.id, entry.key));

  // A "3" is in nearly every id: only what is long enough to be part of one is looked for there.
  const has = (index, word) => haystacks[index].includes(word) || (word.length >= 4 && names[index].includes(word));
  const wantedStates = new Set();

  const ORDERS = {
    line: () => 0,
    cost: (a, b) => (b.cost?.[0] ?? -1) - (a.cost?.[0] ?? -1),
    seconds: (a, b) => (b.seconds ?? -1) - (a.seconds ?? -1),
    state: (a, b) => WORST_FIRST.indexOf(a.state) - WORST_FIRST.indexOf(b.state),
  };

  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = $("kind").value;
    const order = ORDERS[$("order").value];
    shown = [];
    entries.forEach((entry, index) => {
      if (wantedStates.size && !wantedStates.has(entry.state)) return;
      if (kind && kindOf(entry) !== kind) return;
      if (words.every((word) => has(index, word))) shown.push(index);
    });
    shown.sort((a, b) => order(entries[a], entries[b]) || entries[a].line - entries[b].line || a - b);
    if (!shown.includes(active)) active = shown[0] ?? -1;

    const all = shown.length === entries.length;
    $("count").textContent = all ? several(entries.length, "result", "results") : `${number.format(shown.length)} of ${number.format(entries.length)}`;
    $("nothing").hidden = shown.length > 0;
    renderAnew();
  }

  function filterFromTop() {
    const top = feed.getBoundingClientRect().top + scrollY;
    if (scrollY > top) scrollTo(0, top - document.querySelector(".tools").offsetHeight);
    filter();
  }

  function chips() {
    for (const state of STATES) {
      const count = entries.filter((entry) => entry.state === state).length;
      if (!count) continue;
      const chip = make(
        "button",
        { type: "button", class: state, "aria-pressed": "false" },
        make("span", { class: "dot", "aria-hidden": "true" }),
        make("span", { text: state === "open" ? "going on" : state }),
        make("span", { class: "number", text: number.format(count) }),
      );
      chip.addEventListener("click", () => {
        if (!wantedStates.delete(state)) wantedStates.add(state);
        chip.setAttribute("aria-pressed", String(wantedStates.has(state)));
        filterFromTop();
      });
      $("states").append(chip);
    }
  }

  function kinds() {
    const names = { image: "Pictures", video: "Videos", audio: "Sounds", model: "3-D", text: "Words", file: "Other files", none: "Without a result" };
    const found = new Set(entries.map(kindOf));
    $("kind").append(make("option", { value: "", text: "All kinds" }));
    for (const [kind, name] of Object.entries(names)) if (found.has(kind)) $("kind").append(make("option", { value: kind, text: name }));
    $("kind").parentElement.hidden = found.size < 2;
  }

  function figures() {
    const unreadable = JSON.parse($("unreadable").textContent);
    if (unreadable) $("left-out").textContent = ` · ${several(unreadable, "line is", "lines are")} no result, and left out`;
    const costs = new Map();
    const times = [];
    for (const entry of entries) {
      if (entry.cost) costs.set(entry.cost[1], (costs.get(entry.cost[1]) || 0) + entry.cost[0]);
      if (entry.seconds) times.push(entry.seconds);
    }
    times.sort((a, b) => a - b);
    const done = entries.filter((entry) => entry.state === "done").length;
    const add = (name, value) => $("figures").append(make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
    add("Done", `${number.format(done)} of ${number.format(entries.length)}`);
    if (costs.size) add("Cost", [...costs].map(([unit, amount]) => cost([amount, unit], amount < 1e6 ? number : short)).join(" + "));
    if (times.length) add("Half took less than", duration(times[Math.floor(times.length / 2)]));
    const saved = entries.reduce((sum, entry) => sum + (entry.media || []).filter((file) => file.saved).length, 0);
    if (saved) add("Files saved", number.format(saved));
  }

  // -- closer --------------------------------------------------------------------------------------

  function large(index, entry) {
    const files = results(entry);
    if (!files.length) return [entry.words && entry.state === "done" ? make("div", { class: "wordy", text: entry.words }) : silent(entry)];
    const quarter = quadrants(entry);
    const rest = quarter.length === 4 ? files.filter((file) => !file.quadrant && file.kind !== "image") : files;
    const cover = (entry.media || []).find((file) => file.role === "cover" && file.kind === "image");
    const shownLarge = rest.map((file) => {
      if (file.kind === "image") return make("div", {}, picture(file, title(entry).slice(0, 160)));
      if (file.kind === "video" || file.kind === "audio") return make("div", {}, player(file, cover));
      return make("div", { class: "files" }, fileLink(file));
    });
    if (quarter.length !== 4) return shownLarge;
    const four = quarters(index, entry);
    four.forEach((element) => element.classList.add("quarter"));
    return [...four, ...shownLarge];
  }

  function facts(entry) {
    const rows = [
      ["State", entry.status && entry.status !== entry.state ? `${entry.state} (${entry.status})` : entry.state],
      ["Verb", entry.verb],
      ["Task", entry.id],
      ["Key", entry.key],
      ["Line", String(entry.line)],
      ["Cost", entry.cost && cost(entry.cost)],
      ["Duration", entry.seconds && `${duration(entry.seconds)}${entry.worked ? `, ${duration(entry.worked)} of it at work` : ""}`],
    ];
    const list = make("dl");
    for (const [name, value] of rows) if (value) list.append(make("dt", { text: name }), make("dd", { text: value }));
    return list;
  }

  function fileList(entry) {
    if (!entry.media?.length) return null;
    return make("ul", {}, ...entry.media.map((file) => {
      const item = make("li", {}, fileLink(file));
      if (file.role) item.append(` ${file.role}`);
      if (file.link && file.link !== file.at) item.append(outward(file.link, "link"));
      return item;
    }));
  }

  function open(index) {
    const entry = entries[index];
    const dialog = $("detail");
    const position = shown.indexOf(index);
    const scrolled = dialog.scrollTop;
    const step = (by) => () => {
      const next = shown[position + by];
      if (next !== undefined) open(next);
    };
    const near = (by, text, label) =>
      make("button", { type: "button", class: "quiet", "aria-label": label, disabled: shown[position + by] === undefined, text, on: { click: step(by) } });
    dialog.replaceChildren(
      make("div", { class: `detail ${entry.state}` },
        make("div", { class: "shown" }, ...large(index, entry)),
        make("div", { class: "told" },
          make("h2", { id: "detail-title", text: `Line ${entry.line}${entry.verb ? ` · ${entry.verb}` : ""}` }),
          entry.prompt ? make("p", { class: "full", text: entry.prompt }) : null,
          entry.error ? make("p", { class: "why", text: entry.kind ? `${entry.kind}: ${entry.error}` : entry.error }) : null,
          entry.words && entry.state === "done" && results(entry).length ? make("p", { class: "full", text: entry.words }) : null,
          facts(entry),
          fileList(entry),
          entry.request ? make("pre", { text: entry.request, tabindex: "0", "aria-label": "Request" }) : null,
          entry.extra ? make("pre", { text: entry.extra, tabindex: "0", "aria-label": "Other columns" }) : null,
          make("div", { class: "actions" },
            near(-1, "←", "Previous"), near(1, "→", "Next"), again(index, entry),
            make("button", { type: "button", class: "strong", text: "Close", autofocus: true, on: { click: () => dialog.close() } }))),
      ),
    );
    for (const button of dialog.querySelectorAll("[tabindex='-1']")) button.removeAttribute("tabindex");
    dialog.onkeydown = (event) => {
      if (event.target.closest("audio, video, pre")) return;
      if (event.key === "ArrowLeft") step(-1)();
      else if (event.key === "ArrowRight") step(1)();
      else if (choose(index, event.key)) event.preventDefault();
    };
    dialog.onclose = () => goTo(shown.indexOf(active));
    setActive(index);
    if (!dialog.open) {
      dialog.showModal();
      dialog.scrollTop = 0;
    } else {
      dialog.scrollTop = scrolled;
      dialog.querySelector(".actions .strong").focus({ preventScroll: true });
    }
  }

  function showExport() {
    if (!chosen.size) return;
    $("lines").value = exported();
    $("exporting").showModal();
    $("lines").setSelectionRange(0, 0);
    $("lines").scrollTop = 0;
  }

  // -- keys ------------------------------------------------------------------------------------------

  function choose(index, key) {
    const entry = entries[index];
    if (!entry) return false;
    if (/^[1-4]$/.test(key) && entry.actions?.upscale?.includes(Number(key))) toggle(index, key);
    else if (key === "r" && anew(entry)) toggle(index, anew(entry));
    else return false;
    return true;
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const here = event.target.closest?.(".card");
    const position = shown.indexOf(active);
    const isEntering = event.target === document.body && /^Arrow(Left|Right)$/.test(event.key);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layout.columns, ArrowDown: layout.columns };
    if (event.key === "/") $("search").focus();
    else if (event.key === "?") $("help").showModal();
    else if (event.key === "e") showExport();
    else if (isEntering) goTo(cards.has(active) ? position : firstInView());
    else if (here && event.key in moves) {
      const next = position + moves[event.key];
      if (next >= 0 && next < shown.length) goTo(next);
      else if (event.key === "ArrowDown") goTo(shown.length - 1);
    } else if (here && event.key === "Home") goTo(0);
    else if (here && event.key === "End") goTo(shown.length - 1);
    else if (here && event.key === "Enter" && event.target === here) open(active);
    else if (!(here && choose(active, event.key))) return;
    event.preventDefault();
  }

  // -- beginning ---------------------------------------------------------------------------------------

  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filterFromTop, 80);
  });
  $("kind").addEventListener("change", filterFromTop);
  $("order").addEventListener("change", filterFromTop);
  $("reset").addEventListener("click", () => {
    $("search").value = "";
    $("kind").value = "";
    wantedStates.clear();
    for (const chip of $("states").children) chip.setAttribute("aria-pressed", "false");
    filter();
  });
  $("clear").addEventListener("click", () => {
    chosen.clear();
    chosenChanged();
    renderAnew();
  });
  $("export").addEventListener("click", showExport);
  $("copy").addEventListener("click", async () => {
    $("lines").select();
    try {
      await navigator.clipboard.writeText($("lines").value);
    } catch {
      document.execCommand("copy"); // a page from a file has no clipboard
    }
    $("copy").textContent = "Copied";
  });
  $("exporting").addEventListener("close", () => {
    $("copy").textContent = "Copy";
  });
  $("save").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([$("lines").value], { type: "application/x-ndjson" }));
    const link = make("a", { href: address, download: "chosen.jsonl" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
  $("keys").addEventListener("click", () => $("help").showModal());
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
  });
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside it
    });
  }
  document.addEventListener("keydown", pressed);
  addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => {
    if (feed.clientWidth === layout.seen) return;
    measure();
    layout.seen = feed.clientWidth;
    for (const [index, element] of cards) place(element, shown.indexOf(index));
    render();
  }).observe(feed);

  for (const choice of chosen) if (!entries[choice.split(":")[0]]?.actions) chosen.delete(choice);
  chips();
  kinds();
  figures();
  filter();
  chosenChanged();
  feed.setAttribute("aria-busy", "false");
})();
