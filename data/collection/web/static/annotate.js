"use strict";
// Every page of an annotator. Without this script its forms work all the same.
// An answer stays in localStorage until the server has it; the next pair replaces the page's body.

const IDLE = 60_000; // milliseconds without a sign of life after which nobody is reading
const LONGEST_WAIT = 15; // seconds between two attempts to reach the server
const JSON_PLEASE = { Accept: "application/json" };
const $ = (selector) => document.querySelector(selector);
const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

// What a browser that keeps nothing refuses is only missed when the network is lost.
const keep = (store, key, value) => { try { store.setItem(key, value); } catch { /* private */ } };
const kept = (store, key) => { try { return store.getItem(key); } catch { return null; } };
const drop = (store, key) => { try { store.removeItem(key); } catch { /* private */ } };

const given = new Map(); // from an assignment to what was said of it here, for whoever undoes it
let busy = false;

// Time: only while the page can be seen and its reader shows signs of life.

let active = 0, ticked = performance.now(), touched = ticked;

function tick() {
  const now = performance.now();
  const here = document.visibilityState === "visible" && now - touched < IDLE;
  if (here) active += Math.min(now - ticked, 1000);
  ticked = now;
}
setInterval(tick, 250);
for (const sign of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "touchmove"])
  addEventListener(sign, () => { touched = performance.now(); }, { passive: true, capture: true });
document.addEventListener("visibilitychange", tick);
addEventListener("pagehide", () => {
  const form = $("#judge");
  if (form) keep(sessionStorage, form.elements.assignment.value, active);
});

// What the page says about itself.

function say(text, kind = "") {
  const status = $("#status");
  if (!status) return;
  status.textContent = text;
  status.className = kind;
}

function begin() {
  const form = $("#judge");
  active = form ? Number(kept(sessionStorage, form.elements.assignment.value)) || 0 : 0;
  ticked = touched = performance.now();
}

function askCriteria(form) {
  // of whoever could judge; without this script the server asks
  const side = form.elements.side.value, judged = !["cannot_judge", "unwilling"].includes(side);
  for (const field of form.querySelectorAll("[data-required] input")) field.required = judged;
}

function refill() {
  const form = $("#judge"), body = given.get(form?.elements.assignment.value);
  if (!body) return;
  const values = new URLSearchParams(body);
  for (const field of form.querySelectorAll("input[type=radio], input[type=checkbox]"))
    field.checked = values.getAll(field.name).includes(field.value);
  form.elements.comment.value = values.get("comment") ?? "";
}

// The server: asked until it answers.

async function insist(url, options) {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
    try {
      const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(20_000) });
      if (answer.status < 500 && answer.status !== 429) return answer;
    } catch { /* no network: the same as no server */ }
    say(document.body.dataset.offline, "wrong");
    const online = new Promise((go) => addEventListener("online", go, { once: true }));
    await Promise.race([online, pause(wait)]);
  }
}

async function show(url) {
  const page = await (await insist(url, { headers: { Accept: "text/html" } })).text();
  const next = new DOMParser().parseFromString(page, "text/html");
  if (next.querySelector("meta[http-equiv=refresh]")) return location.assign(url);
  document.title = next.title;
  document.documentElement.lang = next.documentElement.lang;
  document.body.replaceWith(document.adoptNode(next.body));
  scrollTo(0, 0);
  $("main").focus({ preventScroll: true });
  begin();
}

// Answers that wait: each under its assignment, so that no tab overwrites what another one keeps.

const mine = () => `answer-${document.body.dataset.person}-`;

function waiting() {
  const keys = () => Object.keys(localStorage).filter((key) => key.startsWith(mine()));
  try { return keys(); } catch { return []; }
}

function judge(form) {
  if (busy) return;
  tick();
  form.elements.milliseconds.value = Math.round(active);
  const body = new URLSearchParams(new FormData(form)).toString();
  const key = mine() + form.elements.assignment.value;
  keep(localStorage, key, body);
  if (kept(localStorage, key) === body) deliver();
  else form.submit(); // nothing can be kept here: the browser's own way
}

async function deliver() {
  if (busy || !waiting().length) return;
  busy = true;
  $("main").setAttribute("aria-busy", "true");
  try {
    const text = document.body.dataset;
    let told = [];
    for (const key of waiting()) {
      const body = kept(localStorage, key), answer = body && await send(key, body);
      if (!answer) continue; // another tab was faster, or someone else is signed in now
      if (answer.status === 401) {
        await show("/login");
        $("main p").textContent = text.signedOut;
        return;
      }
      if (kept(localStorage, key) === body) drop(localStorage, key);
      given.set(new URLSearchParams(body).get("assignment"), body);
      if (!answer.ok) told = [(await answer.json()).error, "wrong"];
      else if (!told.length) told = [text.saved, "unseen"];
    }
    if (location.pathname === "/") await show("/");
    if (told.length) say(...told);
    if (told[1] === "wrong") refill();
  } finally {
    busy = false;
    $("main").removeAttribute("aria-busy");
  }
}

async function send(key, body, again = true) {
  const fields = new URLSearchParams(body);
  fields.set("csrf", $("[name=csrf]").value); // of this session, not of the one before
  const answer = await insist("/judge", { method: "POST", body: fields, headers: JSON_PLEASE });
  if (answer.status !== 403 || !again) return answer;
  await show("/"); // with the token of a newer session
  return key.startsWith(mine()) ? send(key, body, false) : null;
}

async function undo(form) {
  if (busy) return;
  busy = true;
  try {
    // Once only: a second attempt might undo one more.
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch("/undo", { method: "POST", body, headers: JSON_PLEASE });
    const error = answer.ok ? "" : (await answer.json()).error;
    await show("/");
    if (error) say(error, "wrong");
    else refill();
  } catch {
    say(document.body.dataset.notUndone, "wrong");
  } finally {
    busy = false;
  }
}

// Keys, clicks and forms: heard at the document, because its body is replaced.

async function open(dialog) {
  const text = dialog.querySelector("div.text");
  if (text && !text.hasChildNodes()) {
    const page = await (await fetch("/guidelines")).text();
    const read = new DOMParser().parseFromString(page, "text/html");
    text.replaceChildren(...read.querySelector("article.guidelines").children);
  }
  dialog.showModal();
}

function press(target) {
  if (target.matches("textarea")) return target.focus();
  const optional = target.type === "radio" && !target.required;
  if (optional && target.checked) target.checked = false;
  else target.click();
  if (target.matches("input")) target.focus();
}

document.addEventListener("keydown", (event) => {
  const form = $("#judge"), writing = event.target.matches("textarea, input[type=text]");
  const control = event.ctrlKey || event.metaKey;
  if (writing && event.key === "Escape") return event.target.blur();
  if (event.key === "Enter" && form && !$("dialog[open]")) {
    if (writing ? !control : event.target.matches("a, button, summary")) return;
    event.preventDefault();
    askCriteria(form);
    return form.requestSubmit();
  }
  if (writing || control || event.altKey || event.isComposing || event.repeat) return;
  if ($("dialog[open]")) return;
  const target = $(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target) return;
  event.preventDefault();
  press(target);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open($(`#${link.dataset.dialog}`)).catch(() => { location.href = link.href; });
});

document.addEventListener("change", (event) => {
  if (event.target.form?.id === "judge") askCriteria(event.target.form);
});

document.addEventListener("submit", (event) => {
  const ours = { judge, undo }[event.target.id];
  if (!ours) return;
  event.preventDefault();
  ours(event.target);
});

begin();
deliver();
