// Blind review in the browser: fetches a pair, sends the vote, and shows "saved" only after the server has confirmed it.
(function () {
  const spot = (name) => { try { return localStorage.getItem(name); } catch (blocked) { return null; } };
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch (blocked) { /* this visit only */ } };
  let began = Date.now();
  const box = () => document.getElementById("review-box");
  const load = async () => {
    const place = box();
    if (!place) return;
    try {
      const answer = await fetch("medllm/pair?" + new URLSearchParams({ rater: window.medllm.rater(), lang: window.medllm.language }));
      place.innerHTML = await answer.text();
    } catch (away) { place.querySelector("[role=status]").textContent = place.dataset.away; }
    const consent = place.querySelector("[name=consent]");
    if (consent && spot("medllm-consent") === "1") { consent.checked = true; enable(place); }
    began = Date.now();
  };
  const enable = (place) => {
    const agreed = place.querySelector("[name=consent]").checked;
    keep("medllm-consent", agreed ? "1" : "0");
    place.querySelectorAll("[data-choose]").forEach((button) => { button.disabled = !agreed; });
  };
  const marked = (form, side) => [...form.querySelectorAll(`[data-side=${side}] [data-sentence][aria-pressed=true]`)].map((b) => Number(b.dataset.sentence));
  const ticked = (form, name) => [...form.querySelectorAll(`[name=${name}]:checked`)].map((input) => input.value);
  const send = async (form, choice) => {
    const said = form.querySelector(".vote-status");
    const buttons = form.querySelectorAll("[data-choose]");
    buttons.forEach((button) => { button.disabled = true; });
    const vote = {
      rater: window.medllm.rater(), at: Number(form.dataset.at), shown: form.dataset.shown, choice,
      reasons_a: ticked(form, "reasons_a"), reasons_b: ticked(form, "reasons_b"),
      faulty_a: marked(form, "a"), faulty_b: marked(form, "b"),
      note: form.elements.note.value, role: form.elements.role.value,
      language: window.medllm.language, seconds: (Date.now() - began) / 1000,
    };
    try {
      const answer = await fetch("medllm/vote", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(vote) });
      if (!answer.ok) throw new Error(answer.status);
      box().innerHTML = await answer.text();
      const thanks = document.getElementById("thanks");
      if (thanks) thanks.focus();
    } catch (away) {
      said.textContent = form.closest("[data-unsaved]").dataset.unsaved;
      buttons.forEach((button) => { button.disabled = false; });
    }
  };
  document.addEventListener("click", (event) => {
    const choose = event.target.closest && event.target.closest("[data-choose]");
    if (choose && !choose.disabled) send(choose.closest("form"), choose.dataset.choose);
    if (event.target.closest && event.target.closest("[data-next-pair]")) load();
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "rater-name") { window.medllm.named(event.target.value); load(); }
    if (event.target.name === "consent" && event.target.closest("form.vote")) enable(event.target.closest("form.vote"));
  });
  window.medllm.review = () => {
    const place = box(), name = document.getElementById("rater-name");
    if (name) name.value = window.medllm.name();
    if (place && !place.querySelector("form, #thanks")) load();
  };
})();
