"use strict";

const table = document.getElementById("live");
const announce = document.getElementById("spoken");
const form = document.getElementById("operate");
const ask = document.getElementById("ask");
const help = document.getElementById("help");
const keysOn = document.getElementById("keys-on");
const search = document.getElementById("search");

const KEYS_OFF = "alert-keys-off";
const PLACE = "alert-place";
const WORDS = {
  acknowledge: ["Acknowledge", "Nobody is reminded of them any more, unless they get worse."],
  resolve: ["Resolve", "They end now; the next bad report opens new ones."],
  silence: ["Silence", "Their subjects make no noise for a time. The note says why."],
};

/** The keys of the selected alerts; a refresh replaces the checkboxes, not this. */
const selected = new Set();
let all = false;
/** How many "all" are, and the highest key of them, as the dialog that is open says it. */
let asked = null;
let place = sessionStorage.getItem(PLACE) ?? "";
let index = 0;
let anchor = "";

const rows = () => [...table.querySelectorAll("tr[data-alert]")];
const rowOf = (key) => rows().find((row) => row.dataset.alert === key);
const boxOf = (row) => row?.querySelector("input[name=alert]");
const total = () => asked?.total ?? Number(document.getElementById("alerts")?.dataset.total ?? 0);
const count = () => (all ? total() : selected.size);

// --- What is selected ----------------------------------------------------------------------------

function draw() {
  for (const row of rows()) {
    const box = boxOf(row);
    if (box) box.checked = all || selected.has(row.dataset.alert);
    row.classList.toggle("here", row.dataset.alert === place);
  }
  const page = document.getElementById("whole-page");
  const boxes = rows().filter(boxOf);
  if (page) {
    page.checked = boxes.length > 0 && boxes.every((row) => boxOf(row).checked);
    page.indeterminate = !page.checked && boxes.some((row) => boxOf(row).checked);
  }
  const matching = document.getElementById("all-matching");
  if (matching) matching.checked = all;
  if (!form) return;
  const number = count();
  const some = number === 1 ? "1 alert is selected" : `${number} alerts are selected`;
  const text = number === 0 ? "No alert is selected" : all ? `All ${number} that match are selected` : some;
  const chosen = document.getElementById("chosen");
  if (chosen.textContent !== text) announce.textContent = chosen.textContent = text;
  form.classList.toggle("ready", number > 0);
  if (ask.open) describe();
}

function choose(row, on) {
  // Of all that match, this page remains: the others can't be seen.
  if (all) for (const one of rows()) selected.add(one.dataset.alert);
  all = false;
  if (on) selected.add(row.dataset.alert);
  else selected.delete(row.dataset.alert);
}

/** Select or deselect every row from the last one that was clicked to this one. */
function chooseRange(row, on) {
  const list = rows();
  const ends = [list.indexOf(rowOf(anchor) ?? row), list.indexOf(row)].sort((a, b) => a - b);
  for (const one of list.slice(ends[0], ends[1] + 1)) choose(one, on);
}

table.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-alert]");
  if (!row || event.target !== boxOf(row)) return;
  if (event.shiftKey) chooseRange(row, event.target.checked);
  else choose(row, event.target.checked);
  anchor = row.dataset.alert;
  draw();
});

table.addEventListener("change", (event) => {
  if (event.target.id === "all-matching") {
    all = event.target.checked;
    selected.clear();
  } else if (event.target.id === "whole-page") {
    for (const row of rows()) choose(row, event.target.checked);
  } else {
    return;
  }
  draw();
});

table.addEventListener("focusin", (event) => {
  const row = event.target.closest("tr[data-alert]");
  if (row) stay(row);
});

table.addEventListener("refreshed", () => {
  const list = rows();
  const present = new Set(list.map((row) => row.dataset.alert));
  // What is not on the page any more can't be seen, and so is not acted on.
  for (const key of selected) if (!present.has(key)) selected.delete(key);
  // Nobody has looked at what came while the dialog was open.
  if (asked) document.getElementById("newest")?.setAttribute("value", asked.newest);
  if (place && !present.has(place)) {
    const next = list[Math.min(index, list.length - 1)];
    if (next && document.activeElement === document.body) go(next);
  }
  draw();
});

// --- Where the keyboard is -----------------------------------------------------------------------

function stay(row) {
  place = row.dataset.alert;
  index = rows().indexOf(row);
  for (const other of rows()) other.classList.toggle("here", other === row);
}

function go(row) {
  stay(row);
  (boxOf(row) ?? row.querySelector("a")).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const list = rows();
  if (list.length === 0) return;
  const from = list.indexOf(rowOf(place));
  go(from < 0 ? list[0] : list[Math.max(0, Math.min(list.length - 1, from + step))]);
}

// --- Acting --------------------------------------------------------------------------------------

function describe() {
  const [verb, consequence] = WORDS[document.getElementById("confirm").value];
  const number = count();
  const what = number === 1 ? "1 alert" : all ? `all ${number} alerts that match` : `${number} alerts`;
  document.getElementById("ask-title").textContent = `${verb} ${what}`;
  document.getElementById("ask-what").textContent = consequence;
}

function open(action) {
  const here = rowOf(place);
  if (count() === 0 && here) choose(here, true);
  draw();
  if (count() === 0) {
    announce.textContent = "No alert is selected";
    return;
  }
  const confirm = document.getElementById("confirm");
  const note = document.getElementById("note");
  confirm.value = action;
  confirm.textContent = WORDS[action][0];
  note.required = action === "silence";
  document.getElementById("details").dataset.action = action;
  asked = { total: total(), newest: document.getElementById("newest").value };
  describe();
  ask.showModal();
  note.focus();
}

if (form) {
  // One note field: without script it stands in the bar, with it in the dialog.
  document.getElementById("ask-details").append(document.getElementById("details"));
  for (const field of document.querySelectorAll("#details [name]")) field.setAttribute("form", "operate");
  for (const button of form.querySelectorAll("button[name=action]")) {
    // The dialog's button is then the one that Enter in the note presses.
    button.type = "button";
    button.addEventListener("click", () => open(button.value));
  }
  form.addEventListener("submit", (event) => {
    if (!ask.open) event.preventDefault();
    else sessionStorage.setItem(PLACE, place);
  });
  ask.addEventListener("close", () => {
    asked = null;
    draw();
    const here = rowOf(place);
    if (here) go(here);
  });
}
sessionStorage.removeItem(PLACE);

// --- Keys ----------------------------------------------------------------------------------------

const KEYS = {
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  x: () => {
    const box = boxOf(rowOf(place));
    if (box) box.click();
  },
  Enter: () => rowOf(place)?.querySelector("a").click(),
  a: () => form && open("acknowledge"),
  r: () => form && open("resolve"),
  s: () => form && open("silence"),
  "/": () => search.focus(),
  "?": () => help.showModal(),
  Escape: () => {
    all = false;
    selected.clear();
    draw();
  },
};

/** Return whether a key belongs to the element that has the focus. */
function isTaken(key) {
  const element = document.activeElement;
  if (element.matches("textarea, select, input:not([type=checkbox])")) return true;
  // Links, buttons and boxes outside the rows know Enter and the arrows' scrolling themselves.
  const inRow = element === document.body || element.closest("tr[data-alert]");
  return key.length > 1 && key !== "Escape" && (!inRow || (key === "Enter" && element.matches("a")));
}

document.addEventListener("keydown", (event) => {
  const dialog = document.querySelector("dialog[open]");
  if (dialog || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape" && document.activeElement === search) search.blur();
  const act = KEYS[event.key];
  if (!act || isTaken(event.key) || (!keysOn.checked && event.key.length === 1)) return;
  event.preventDefault();
  act();
});

keysOn.checked = localStorage.getItem(KEYS_OFF) === null;
keysOn.addEventListener("change", () => {
  if (keysOn.checked) localStorage.removeItem(KEYS_OFF);
  else localStorage.setItem(KEYS_OFF, "1");
});

document.getElementById("open-help").addEventListener("click", () => help.showModal());
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

// After an action the page is a new one; the keyboard goes on where it was.
const before = rowOf(place);
if (before) go(before);
draw();
