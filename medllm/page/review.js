// Blind review in the browser: fetches a pair, keeps a draft, and shows "saved" only after the server has confirmed the vote.
(function () {
  const stored = (name) => { try { return localStorage.getItem(name); } catch (blocked) { return null; } };
  const store = (name, value) => { try { if (value === null) localStorage.removeItem(name); else localStorage.setItem(name, value); } catch (blocked) { /* this visit only */ } };
  let began = Date.now();
  const box = () => document.getElementById("review-box");
  const formOf = (element) => element.closest && element.closest("form.vote");
  // What belongs to one rater stays apart from others at the same computer; a draft also belongs to these two texts.
  const mine = (name) => `medllm-${name}:${window.medllm.rater()}`;
  const draftOf = (form) => mine(`draft:${form.dataset.shown}`);
  const show = (html) => {
    const place = box();
    place.innerHTML = html;
    const own = "?" + new URLSearchParams({ rater: window.medllm.rater() });
    place.querySelectorAll("[data-own]").forEach((part) => { if (part.href) part.href = part.dataset.own + own; else part.dataset.src = part.dataset.own + own; });
    const form = place.querySelector("form.vote");
    began = Date.now();
    if (!form) return;
    restore(form);
    form.elements.role.value = stored(mine("role")) || "";
    form.elements.consent.checked = stored(mine("consent")) === "1";
    enable(form);
  };
  const load = async (wanted) => {
    const place = box();
    if (!place) return;
    try {
      const answer = await fetch("medllm/pair?" + new URLSearchParams({ rater: window.medllm.rater(), lang: window.medllm.language, ...wanted }));
      show(await answer.text());
    } catch (away) {
      const status = place.querySelector("[role=status]");
      if (status) status.textContent = place.dataset.away;
    }
  };
  const enable = (form) => {
    const agreed = form.elements.consent.checked;
    form.querySelectorAll("[data-choose]").forEach((button) => { button.disabled = !agreed; });
  };
  const marked = (form, side) => [...form.querySelectorAll(`[data-side=${side}] [data-sentence][aria-pressed=true]`)].map((b) => Number(b.dataset.sentence));
  const ticked = (form, name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((input) => input.value);
  const filled = (form) => ({
    reasons_a: ticked(form, "reasons_a"), reasons_b: ticked(form, "reasons_b"),
    faulty_a: marked(form, "a"), faulty_b: marked(form, "b"), note: form.elements.note.value,
  });
  const keep = (form) => {
    const draft = filled(form);
    store(draftOf(form), Object.values(draft).some((value) => value.length) ? JSON.stringify(draft) : null);
    form.querySelector(".draft-status").hidden = stored(draftOf(form)) === null;
  };
  const restore = (form) => {
    let draft = null;
    try { draft = JSON.parse(stored(draftOf(form))); } catch (broken) { store(draftOf(form), null); }
    if (!draft) return;
    for (const side of ["a", "b"]) {
      const reasons = draft["reasons_" + side] || [], faulty = draft["faulty_" + side] || [];
      form.querySelectorAll(`[name=reasons_${side}]`).forEach((input) => { input.checked = reasons.includes(input.value); });
      form.querySelectorAll(`[data-side=${side}] [data-sentence]`).forEach((b) => b.setAttribute("aria-pressed", String(faulty.includes(Number(b.dataset.sentence)))));
    }
    form.elements.note.value = draft.note || "";
    form.querySelector(".draft-status").hidden = false;
  };
  const send = async (form, choice) => {
    const status = form.querySelector(".vote-status"), buttons = form.querySelectorAll("[data-choose]"), draft = draftOf(form);
    buttons.forEach((button) => { button.disabled = true; });
    const vote = {
      rater: window.medllm.rater(), at: Number(form.dataset.at), shown: form.dataset.shown, choice, ...filled(form),
      role: form.elements.role.value, language: window.medllm.language, seconds: (Date.now() - began) / 1000,
      supersedes: form.dataset.supersedes || undefined,
    };
    try {
      const answer = await fetch("medllm/vote", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(vote) });
      if (!answer.ok) throw new Error(answer.status);
      store(draft, null);
      show(await answer.text());
      const saved = document.getElementById("saved");
      if (saved) { saved.focus(); saved.scrollIntoView({ block: "nearest" }); }
    } catch (away) {
      status.textContent = form.closest("[data-unsaved]").dataset.unsaved;
      buttons.forEach((button) => { button.disabled = false; });
    }
  };
  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest && event.target.closest(selector);
    const choose = at("[data-choose]"), pair = at("#review-box [data-pair]"), block = at("#review-box [data-block]");
    if (choose && !choose.disabled) send(choose.closest("form"), choose.dataset.choose);
    if (pair) load(pair.dataset.pair ? { at: pair.dataset.pair } : {});
    if (block) load({ block: block.dataset.block });
    if (at("[data-sentence]") && formOf(event.target)) keep(formOf(event.target));
  });
  document.addEventListener("input", (event) => { if (event.target.name === "note" && formOf(event.target)) keep(formOf(event.target)); });
  document.addEventListener("change", (event) => {
    const form = formOf(event.target), name = event.target.name;
    if (event.target.id === "rater-name") { window.medllm.named(event.target.value); load({}); }
    if (!form) return;
    if (name === "consent") { store(mine("consent"), event.target.checked ? "1" : "0"); enable(form); }
    else if (name === "role") store(mine("role"), event.target.value);
    else keep(form);
  });
  document.addEventListener("keydown", (event) => {
    const form = box() && box().querySelector("form.vote");
    if (!form || !form.offsetParent || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest && event.target.closest("textarea, select, input:not([type=checkbox]), [role=tab]")) return;
    const button = form.querySelector(`[data-choose][data-key="${CSS.escape(event.key)}"]`), before = document.getElementById("correct");
    if (button && !button.disabled) button.click();
    else if (event.key === "z" && before) before.click();
  });
  document.addEventListener("medllm-language", () => { const form = box() && box().querySelector("form.vote"); if (form) load({ at: form.dataset.at }); });
  window.medllm.review = () => {
    const place = box(), name = document.getElementById("rater-name");
    if (name) name.value = window.medllm.name();
    if (place && !place.querySelector("form, #saved, .judged")) load({});
  };
})();
