"use strict";

const EVERY = 10_000;
const PATIENCE = 8_000;

const live = document.getElementById("live");
const lost = document.getElementById("lost");
const spoken = document.getElementById("spoken");

const text = (id) => document.getElementById(id)?.textContent.trim() ?? "";

/** Replace the live part and tell it by the event "refreshed"; the keyboard's place stays on the element of the same id. */
function show(html) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const before = text("state");
  const { scrollX, scrollY } = window;
  live.innerHTML = html;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  window.scrollTo({ left: scrollX, top: scrollY, behavior: "instant" });
  live.dispatchEvent(new Event("refreshed"));
  // Only a new headline is read out; a whole board every ten seconds would be noise.
  if (text("state") !== before) spoken.textContent = text("state");
}

/** Return whether a person is marking text or pressing a button in the live part. */
function isInUse() {
  const selection = document.getSelection();
  const marks = !selection.isCollapsed && live.contains(selection.anchorNode);
  return marks || live.matches(":active");
}

async function refresh() {
  if (document.hidden || isInUse()) return;
  try {
    const response = await fetch(live.dataset.source, {
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (response.type === "opaqueredirect") {
      // The session has ended: the server sends everything to the sign-in page.
      window.location.assign(live.dataset.signIn);
      return;
    }
    if (!response.ok) throw new Error(`The server answered ${response.status}`);
    show(await response.text());
    lost.hidden = true;
  } catch (error) {
    lost.textContent = `Connection lost, last update ${text("refreshed")} (${error.message}).`;
    lost.hidden = false;
  }
}

async function run() {
  await refresh();
  setTimeout(run, EVERY);
}

setTimeout(run, EVERY);
document.addEventListener("visibilitychange", refresh);
