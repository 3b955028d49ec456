// Runs before Gradio: the language is set here, because Gradio reads the browser's language only once.
(function () {
  const query = new URLSearchParams(location.search);
  let language = query.get("lang");
  try {
    if (language === "ja" || language === "en") localStorage.setItem("medllm-lang", language);
    else language = localStorage.getItem("medllm-lang");
  } catch (blocked) { /* private windows may refuse storage: the link still decides */ }
  if (language !== "ja" && language !== "en") language = (navigator.language || "ja").startsWith("ja") ? "ja" : "en";
  Object.defineProperty(navigator, "language", { get: () => language });
  Object.defineProperty(navigator, "languages", { get: () => [language] });
  const root = document.documentElement;
  const keep = () => { if (root.lang !== language) root.lang = language; };
  keep();
  new MutationObserver(keep).observe(root, { attributes: true, attributeFilter: ["lang"] });

  // Gradio reports its first tab as chosen while it mounts: nothing is written until the link has been read.
  let restored = false;
  // The window's title names the view and the question: several windows are told apart.
  const entitle = () => {
    const tab = document.querySelector("[role=tab][aria-selected=true]"), head = document.querySelector(".top h1"), card = document.querySelector("#card h2");
    const parts = [card && card.offsetParent ? card.innerText : "", tab ? tab.innerText : "", head ? head.innerText : ""];
    document.title = parts.map((part) => part.trim()).filter(Boolean).join(" · ");
  };
  const remember = (changes) => {
    setTimeout(entitle, 100);
    if (!restored && !("lang" in changes)) return;
    const link = new URL(location);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "" || value === false) link.searchParams.delete(name);
      else link.searchParams.set(name, value === true ? "1" : value);
    }
    // Another tab or question is a place to come back to; a filter is not.
    const now = new URL(location), moved = ["tab", "q"].some((name) => (link.searchParams.get(name) || "") !== (now.searchParams.get(name) || ""));
    if (moved && restored && !("lang" in changes)) history.pushState(null, "", link);
    else history.replaceState(null, "", link);
  };
  const say = (text) => {
    const place = document.getElementById("page-status");
    if (place) { place.textContent = text; setTimeout(() => { place.textContent = ""; }, 4000); }
  };
  // The rater: the name given here, else a number drawn once; without storage, for this visit only.
  let listScroll = 0;
  const visit = {};
  const stored = (key) => { try { return localStorage.getItem(key) || visit[key] || ""; } catch (blocked) { return visit[key] || ""; } };
  const store = (key, value) => { visit[key] = value; try { localStorage.setItem(key, value); } catch (blocked) { /* this visit only */ } };
  const drawn = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const rater = () => {
    if (stored("medllm-name")) return "name:" + stored("medllm-name");
    if (!stored("medllm-rater")) store("medllm-rater", drawn());
    return stored("medllm-rater");
  };
  window.medllm = {
    get language() { return language; }, remember, say, rater, name: () => stored("medllm-name"), named: (name) => store("medllm-name", name.trim()),
    restored() { restored = true; show(); },
    opened(key) { remember({ q: key, tab: "compare", walk: 1 }); const head = document.querySelector("#card h2"); if (head) head.focus({ preventScroll: true }); },
    listed() { remember({ tab: "flips" }); requestAnimationFrame(() => setTimeout(() => window.scrollTo(0, listScroll), 60)); },
    speak(chosen) {
      if (chosen === language || !["ja", "en"].includes(chosen)) return;
      language = chosen;
      store("medllm-lang", chosen);
      remember({ lang: chosen });
      keep();
      pressed();
      translate(document.body);
      document.dispatchEvent(new Event("medllm-language"));
    },
    link(text = location.href) {
      const done = () => say(language === "ja" ? "リンクをコピーしました" : "Link copied");
      if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, () => say(text));
      else say(text);
    },
  };
  // A reader's own question travels behind the # of a link: browsers send that part to no server.
  const OWN = ["#own textarea", "#own-choices textarea"];
  const ownLink = () => {
    const link = new URL(location);
    link.search = "?tab=ask";
    link.hash = "own=" + encodeURIComponent(JSON.stringify(OWN.map((place) => document.querySelector(place).value)));
    return link.href;
  };
  const fillOwn = () => {
    if (!location.hash.startsWith("#own=")) return;
    let given = [];
    try { given = JSON.parse(decodeURIComponent(location.hash.slice(5))); } catch (broken) { return; }
    OWN.forEach((place, at) => {
      const field = document.querySelector(place);
      if (!field || typeof given[at] !== "string") return;
      field.value = given[at].slice(0, field.maxLength > 0 ? field.maxLength : 4000);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-speak]");
    if (button) window.medllm.speak(button.dataset.speak);
    if (event.target.closest && event.target.closest("[data-link]")) window.medllm.link();
    if (event.target.closest && event.target.closest("[data-copy=own]")) {
      const saved = event.target.closest(".tools").querySelector("a").getAttribute("href") + "&lang=" + language;
      fetch(saved).then((answer) => answer.text()).then((text) => navigator.clipboard.writeText(text)).then(() => say(language === "ja" ? "コピーしました" : "Copied"), () => say(language === "ja" ? "コピーできません" : "Cannot copy"));
    }
    if (event.target.closest && event.target.closest("[data-own-link]")) window.medllm.link(ownLink());
    const file = event.target.closest && event.target.closest("a[href*='medllm/comparison.md']");
    if (file) { const link = new URL(file.href); link.searchParams.set("lang", language); file.href = link; }
    if (event.target.closest && event.target.closest("[data-fold-bar]")) event.target.closest(".bar").toggleAttribute("data-short");
    const end = event.target.closest && event.target.closest("[data-end]");
    if (end) { const reply = end.closest(".answer-of").querySelector(".reply"); reply.scrollTop = reply.scrollHeight; reply.focus({ preventScroll: true }); }
    const row = event.target.closest && event.target.closest("#list [data-key]");
    if (row) { listScroll = window.scrollY; row.classList.add("seen"); }
    const sentence = event.target.closest && event.target.closest("[data-sentence]");
    if (sentence) sentence.setAttribute("aria-pressed", sentence.getAttribute("aria-pressed") === "true" ? "false" : "true");
  });
  const KEYS = { ArrowRight: "go-next", j: "go-next", ArrowLeft: "go-previous", k: "go-previous" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.target.closest && event.target.closest("input, textarea, select, [contenteditable], [role=tab], [role=listbox]"))) return;
    const place = document.querySelector("#place [data-list]"), button = document.getElementById(KEYS[event.key]);
    if (button && button.offsetParent) { button.click(); event.preventDefault(); }
    else if (event.key === "u" && place && place.offsetParent) place.click();
    else if (event.key === "?") say(language === "ja" ? "← → または k j：前・次の問題、u：一覧へ戻る" : "← → or k j: previous and next question, u: back to the list");
  });
  // From an open list of Gradio's, Tab would fall on the body and then on the list itself: it goes to the control beside.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" || !event.target.matches || !event.target.matches(".controls input[role=combobox]")) return;
    const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")].filter((part) => part.offsetParent && !part.disabled && !part.closest("ul[role=listbox]"));
    const next = all[all.indexOf(event.target) + (event.shiftKey ? -1 : 1)];
    if (next) { event.preventDefault(); event.target.blur(); next.focus(); }
  }, true);
  // Switches of the layout are attributes of the tabs, so that another question keeps them: the lists, the whole question, the
  // question called back over the replies, and the mode in which nothing is shown before the reader has chosen.
  const turn = (name, on) => {
    const card = document.getElementById("card");
    if (name === "recalled" && card) card.style.minHeight = on ? card.offsetHeight + "px" : "";
    const tabs = document.querySelector(".tabs");
    if (tabs) tabs.toggleAttribute("data-" + name, on);
    document.querySelectorAll(`[data-switch=${name}]`).forEach((button) => button.setAttribute("aria-expanded", String(on)));
  };
  const turned = (name) => Boolean(document.querySelector(`.tabs[data-${name}]`));
  const judge = (card) => {
    const chosen = [...card.querySelectorAll("[data-letter][aria-pressed=true]")].map((b) => b.dataset.letter).sort().join(",");
    const gold = card.dataset.gold.split(" / ");
    if (chosen.length < gold[0].length) return;
    turn("solved", true);
    card.querySelector(".own-answer").textContent = `${chosen.toUpperCase()} ${gold.includes(chosen) ? "✓" : "✗"} (${language === "ja" ? "正答" : "key"} ${gold.join(" / ").toUpperCase()})`;
  };
  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest && event.target.closest(selector);
    const button = at("[data-switch]"), own = at("#card [data-letter]"), skip = at("[data-skip]");
    if (button) { turn(button.dataset.switch, !turned(button.dataset.switch)); turn("solved", false); }
    if (own) { own.setAttribute("aria-pressed", String(own.getAttribute("aria-pressed") !== "true")); judge(own.closest("[data-gold]")); }
    if (skip) {
      const place = [...document.querySelectorAll("#grid .reply.explain, #figures, #list, #own, #review-box, .about")].find((part) => part.offsetParent);
      if (place) { event.preventDefault(); if (!place.hasAttribute("tabindex")) place.tabIndex = -1; place.focus(); }
    }
  });
  document.addEventListener("toggle", (event) => { if (event.target.matches && event.target.matches("#card .key") && event.target.open) turn("solved", true); }, true);
  const watchCard = () => {
    const card = document.getElementById("card"), place = document.getElementById("place");
    if (!card || !place) return;
    place.setAttribute("aria-live", "polite");
    new IntersectionObserver(([seen]) => {
      const away = !seen.isIntersecting && seen.boundingClientRect.bottom < 1;
      turn("away", away);
      if (!away) turn("recalled", false);
    }).observe(card);
    const renew = () => { ["lists", "unfolded", "solving", "whole"].forEach((name) => turn(name, turned(name))); };
    new MutationObserver((changes) => {
      if (!changes.some((change) => [...change.addedNodes].some((node) => node.querySelector))) return;
      turn("recalled", false);
      turn("solved", false);
      renew();
    }).observe(card, { childList: true, subtree: true });
    new MutationObserver(renew).observe(place, { childList: true, subtree: true });
  };
  // Which models are shown, pinned and in which order: rules of style over their places, which outlive every new answer.
  const choice = { names: [], hidden: [], pinned: [] };
  const chips = () => [...document.querySelectorAll("#grid .chips li")];
  const arranged = () => [...choice.names.filter((n) => choice.pinned.includes(n)), ...choice.names.filter((n) => !choice.pinned.includes(n))];
  const arrange = (changed) => {
    const places = new Map(chips().map((chip) => [chip.dataset.name, chip.dataset.m]));
    if (!places.size) return;
    const key = "medllm-models:" + [...places.keys()].join("|");
    if (!changed && choice.key !== key) {
      let kept = {};
      try { kept = JSON.parse(stored(key)) || {}; } catch (broken) { /* as if nothing was kept */ }
      const link = (new URL(location).searchParams.get("models") || "").split("~").filter((n) => places.has(n));
      const known = (list) => (Array.isArray(list) ? list : []).filter((n) => places.has(n));
      const order = link.length ? link : known(kept.names);
      Object.assign(choice, { key, names: [...order, ...[...places.keys()].filter((n) => !order.includes(n))], hidden: link.length ? [...places.keys()].filter((n) => !link.includes(n)) : known(kept.hidden), pinned: known(kept.pinned) });
    }
    const shown = arranged().filter((n) => !choice.hidden.includes(n)), plain = shown.join("~") === [...places.keys()].join("~");
    if (changed) { store(key, JSON.stringify(choice)); remember({ models: plain ? "" : shown.join("~") }); }
    let sheet = document.getElementById("medllm-models");
    if (!sheet) { sheet = document.createElement("style"); sheet.id = "medllm-models"; document.head.append(sheet); }
    sheet.textContent = arranged().map((n, at) => `#grid [data-m="${places.get(n)}"] { order: ${at}; }`).join("\n")
      + choice.hidden.map((n) => `#grid .matrix [data-m="${places.get(n)}"], #grid .columns [data-m="${places.get(n)}"] { display: none; }`).join("\n");
    const press = (chip, action, on) => { const button = chip.querySelector(`[data-${action}]`); if (button.getAttribute("aria-pressed") !== String(on)) button.setAttribute("aria-pressed", String(on)); };
    chips().forEach((chip) => { press(chip, "hide", !choice.hidden.includes(chip.dataset.name)); press(chip, "pin", choice.pinned.includes(chip.dataset.name)); });
    document.querySelectorAll("#grid .columns .model").forEach((column) => column.classList.toggle("pinned", choice.pinned.some((n) => places.get(n) === column.dataset.m)));
    const count = document.querySelector("#grid [data-shown-models]");
    if (count && count.textContent !== String(shown.length)) count.textContent = shown.length;
  };
  // Choices of a list hold text alone, so the script puts them into the reader's language.
  const label = () => document.querySelectorAll("option[data-en]").forEach((choice) => { const text = choice.dataset[language]; if (choice.textContent !== text) choice.textContent = text; });
  document.addEventListener("medllm-language", label);
  // Every value of the grid names its question: it is never shown under another one.
  const guard = () => {
    const grid = document.getElementById("grid"), shown = document.querySelector("#grid .columns"), card = document.querySelector("#card [data-key]");
    if (grid && shown && card) grid.toggleAttribute("data-stale", shown.dataset.key !== card.dataset.key);
  };
  // A reply that is longer than its box is marked, and again when its end is reached: nothing else shows that more follows.
  const measure = (reply) => {
    reply.classList.toggle("long", reply.scrollHeight > reply.clientHeight + 8);
    reply.classList.toggle("ended", reply.scrollTop + reply.clientHeight > reply.scrollHeight - 8);
  };
  const boxes = new ResizeObserver((entries) => entries.forEach((entry) => measure(entry.target)));
  const long = () => document.querySelectorAll(".columns .reply").forEach((reply) => { measure(reply); boxes.observe(reply); });
  document.addEventListener("scroll", (event) => { if (event.target.matches && event.target.matches(".reply")) measure(event.target); }, true);
  document.addEventListener("toggle", (event) => { const reply = event.target.closest && event.target.closest(".reply"); if (reply) measure(reply); }, true);
  let folded = true;
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("#grid .chips button");
    if (!button) return;
    if ("allModels" in button.dataset) Object.assign(choice, { names: chips().map((chip) => chip.dataset.name), hidden: [], pinned: [] });
    else {
      const name = button.closest("li").dataset.name, has = (list) => choice[list].includes(name);
      const flip = (list) => { choice[list] = has(list) ? choice[list].filter((n) => n !== name) : [...choice[list], name]; };
      if ("hide" in button.dataset) { if (has("hidden") || choice.hidden.length < choice.names.length - 1) flip("hidden"); }
      else if ("pin" in button.dataset) flip("pinned");
      else {
        const order = arranged(), at = order.indexOf(name), to = at + ("earlier" in button.dataset ? -1 : 1);
        if (to >= 0 && to < order.length) { [order[at], order[to]] = [order[to], order[at]]; choice.names = order; }
      }
    }
    arrange(true);
    const row = document.querySelector("#grid .columns");
    if (row) row.scrollLeft = 0;  // snapping follows a column to its new place
  });
  document.addEventListener("toggle", (event) => { if (event.target.matches && event.target.matches("#grid .chips")) folded = !event.target.open; }, true);
  new MutationObserver((changes) => {
    if (!changes.some((change) => change.target.closest && change.target.closest("#grid, #card, #own-grid"))) return;
    guard();
    label();
    long();
    const fold = document.querySelector("#grid .chips");
    if (fold && fold.open === folded) fold.open = !folded;
    arrange(false);
  }).observe(root, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-key"] });
  // Two replies beside each other: the table is made on the server, where model output becomes safe text.
  const differ = async (box) => {
    const place = box.querySelector(".differ-table"), lists = [...box.querySelectorAll("select")];
    const wanted = "medllm/difference?" + new URLSearchParams({ q: decodeURIComponent(box.dataset.key), live: box.dataset.live, ...Object.fromEntries(lists.map((list) => [list.dataset.reply, list.value])) });
    const writing = document.querySelector(".columns.writing");
    if (!box.open || (box.dataset.got === wanted && !writing)) return;
    box.dataset.got = wanted;
    const answer = await fetch(wanted);
    if (box.dataset.got === wanted) place.innerHTML = answer.ok ? await answer.text() : "";
  };
  document.addEventListener("toggle", (event) => { if (event.target.matches && event.target.matches(".differ")) differ(event.target); }, true);
  document.addEventListener("change", (event) => { const box = event.target.closest && event.target.closest(".differ"); if (box) differ(box); });
  // A prompt of several thousand characters is fetched only when someone opens it; textContent keeps it text.
  document.addEventListener("toggle", (event) => {
    const box = event.target;
    if (!box.open || !box.dataset || !box.dataset.src || box.dataset.got === box.dataset.src) return;
    const place = box.querySelector("pre");
    fetch(box.dataset.src + "&lang=" + language).then((answer) => answer.text()).then((text) => { place.textContent = text; box.dataset.got = box.dataset.src; });
  }, true);
  // The page's own text is there in both languages. Gradio reads the language once, so the words on its controls are replaced
  // in place: what is typed, chosen or being written stays. Its table of translations comes with the page.
  const pressed = () => document.querySelectorAll("[data-speak]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.speak === language)));
  const first = language;
  let other = null;
  const dictionary = () => {
    const all = (window.gradio_config || {}).i18n_translations || {}, from = all[first === "ja" ? "ja" : "en"] || {}, to = all[first === "ja" ? "en" : "ja"] || {};
    return new Map(Object.keys(from).map((key) => [from[key], to[key]]));
  };
  // Messages that Gradio writes in English alone, whatever the reader's language.
  const ENGLISH = {
    "Connection Lost": "接続が切れました", "Connection to the server was lost. Attempting reconnection...": "サーバーとの接続が切れました。つなぎ直しています…",
    "Error": "エラー", "Warning": "警告", "Info": "お知らせ",
    "Connection errored out.": "接続できませんでした。", "Could not parse server response": "サーバーの返事を読めません。",
    "This application is currently busy. Please try again.": "混み合っています。しばらくしてからもう一度お試しください。", "Queue is full. Please try again.": "混み合っています。しばらくしてからもう一度お試しください。",
  };
  new MutationObserver((changes) => {
    if (language !== "ja") return;
    for (const change of changes) for (const node of change.addedNodes) {
      const toasts = node.closest ? (node.closest("[class*=toast]") ? [node] : [...node.querySelectorAll("[class*=toast]")]) : [];
      for (const toast of toasts) {
        const texts = document.createTreeWalker(toast, NodeFilter.SHOW_TEXT);
        for (let text = texts.nextNode(); text; text = texts.nextNode()) { const known = ENGLISH[text.data.trim()]; if (known) text.data = known; }
      }
    }
  }).observe(root, { childList: true, subtree: true });
  const translate = (part) => {
    if (!other && language === first) return;
    other = other || dictionary();
    const words = language === first ? new Map([...other].map(([one, two]) => [two, one])) : other;
    const fields = [...part.querySelectorAll("input[role=listbox], input[role=combobox]")];
    for (const input of fields) if (words.has(input.value)) input.value = words.get(input.value);
    for (const name of ["aria-label", "placeholder", "title"])
      for (const control of part.querySelectorAll(`[${name}]`)) {
        const text = control.getAttribute(name);
        if (words.has(text) && !control.closest(".html-container")) control.setAttribute(name, words.get(text));
      }
    const texts = document.createTreeWalker(part, NodeFilter.SHOW_TEXT, (node) => node.parentElement && node.parentElement.closest(".html-container, script, style, textarea") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
      const text = node.data.trim();
      if (words.has(text)) node.data = node.data.replace(text, () => words.get(text));
    }
  };
  new MutationObserver((changes) => {
    if (language === first) return;
    const parts = new Set(changes.map((change) => change.target).filter((part) => part.closest && part.isConnected && !part.closest(".html-container")));
    parts.forEach(translate);
  }).observe(root, { childList: true, subtree: true });
  // Gradio mounts piece by piece; the layout is hidden until the last piece is mounted, so nothing jumps.
  let mounted = false;
  const show = () => {
    if (!mounted || !restored) return;
    if (root.classList.contains("medllm-ready")) return;
    root.classList.add("medllm-ready");
    const first = document.getElementById("medllm-first");
    if (first) first.remove();
    pressed();
    watchCard();
    entitle();
    label();
    long();
    const wait = new MutationObserver(() => { if (document.querySelector(OWN[1])) { wait.disconnect(); fillOwn(); } });
    if (document.querySelector(OWN[1])) fillOwn(); else if (location.hash) wait.observe(document.body, { childList: true, subtree: true });
  };
  const watch = new MutationObserver(() => {
    if (!document.getElementById("page-ready")) return;
    watch.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { mounted = true; show(); }));
  });
  document.addEventListener("DOMContentLoaded", () => { watch.observe(document.body, { childList: true, subtree: true }); });
  setTimeout(() => { mounted = restored = true; show(); }, 60000);
})();
