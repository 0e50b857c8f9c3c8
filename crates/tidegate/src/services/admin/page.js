// Fetches the page anew and puts its new content in the place of the old. Without it the page loads itself anew.
"use strict";

const PERIOD_MS = 2000;
const live = document.getElementById("live");
const button = document.getElementById("pause");
let paused = false;
let timer = 0;

function say(text, state) {
  if (live.textContent !== text) live.textContent = text;
  live.className = state;
}

async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error("status " + answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = next.querySelector("main");
    if (!main) throw new Error("another page");
    // What somebody selects to copy it must not go away under the pointer.
    if (document.getSelection().isCollapsed) document.querySelector("main").replaceWith(document.adoptNode(main));
    document.title = next.title;
    say("live", "ok");
  } catch (error) {
    const since = document.getElementById("taken");
    say("no answer (" + error.message + "), as of " + (since ? since.textContent : "before"), "lost");
  }
}

async function turn() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  await refresh();
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(turn, PERIOD_MS);
}

button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Go on" : "Pause";
  if (paused) say("paused", "");
  turn();
});
document.addEventListener("visibilitychange", turn);
button.hidden = false;
say("live", "ok");
timer = setTimeout(turn, PERIOD_MS);
