// Counters, lists and the search choose claims; without this script the page shows all of them.
const form = document.querySelector(".filters"), said = form.querySelector("output");
const buttons = [...document.querySelectorAll("#filters button[aria-pressed]")];
const cards = [...document.querySelectorAll(".card")];
const fold = (text) => text.toLowerCase().normalize("NFKD");

function choose() {
  const pressed = buttons.filter((button) => button.getAttribute("aria-pressed") === "true");
  const verdicts = pressed.filter((button) => button.dataset.verdict), kinds = pressed.filter((button) => button.dataset.kind);
  const figure = form.elements.figure.value;
  const words = fold(form.elements.words.value).split(/\s+/).filter(Boolean);
  const claims = pressed.length > 0 || words.length > 0, any = claims || figure;
  let found = 0, places = 0;
  for (const card of cards) {
    const rows = [...card.querySelectorAll("tr[data-verdict]")];
    const head = fold(card.querySelector("h3").textContent + " " + (card.querySelector(".look")?.textContent ?? ""));
    let kept = 0;
    for (const row of rows) {
      const text = head + " " + fold(row.textContent);
      const fits = (!figure || card.id === figure) && words.every((word) => text.includes(word))
        && (!verdicts.length || verdicts.some(({ dataset }) =>
          dataset.verdict === row.dataset.verdict && dataset.whose === row.dataset.whose))
        && (!kinds.length || kinds.some(({ dataset }) => row.dataset.kinds.split(",").includes(dataset.kind)));
      row.hidden = !fits;
      kept += fits;
    }
    const named = !pressed.length && (!figure || card.id === figure) && words.every((word) => head.includes(word));
    card.hidden = !kept && !named;
    for (const details of card.querySelectorAll("details")) details.open = claims && kept > 0;
    const entry = document.querySelector(`.toc a[href="#${card.id}"]`);
    if (entry) entry.parentElement.hidden = card.hidden;
    found += kept;
    places += !card.hidden;
  }
  said.textContent = any ? `${found} claims in ${places} experiments` : "";
}

for (const button of buttons)
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    choose();
  });
form.addEventListener("input", choose);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => {
  for (const button of buttons) button.setAttribute("aria-pressed", false);
  setTimeout(choose);
});
form.hidden = false;
choose();
