"use strict";
// Answers on their way: each stays on the device until our server itself has acknowledged it.

const ATTEMPTS = 3; // at what the server makes a mistake of: more would keep its annotator waiting
const LONGEST_WAIT = 15; // seconds between two attempts to reach the server
const TROUBLE = { 429: "busy", 500: "broken", 503: "busy" }; // what the page says of it
const $ = (selector) => document.querySelector(selector);
const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

// A browser's storage, and this page's memory for what it refuses to keep.
function shelf(name) {
  const memory = new Map();
  const stored = (use) => { try { return use(window[name]); } catch { return undefined; } };
  return {
    get: (key) => memory.get(key) ?? stored((store) => store.getItem(key)),
    put(key, value) {
      memory.delete(key);
      if (!stored((store) => { store.setItem(key, value); return true; })) memory.set(key, value);
    },
    drop(key) {
      memory.delete(key);
      stored((store) => store.removeItem(key));
    },
    keys: () => [...new Set([...memory.keys(), ...stored((store) => Object.keys(store)) ?? []])],
  };
}

const device = shelf("localStorage"), tab = shelf("sessionStorage");
const failed = new Set(); // answers that wait for the next page to be opened
let busy = false;

// Each under its assignment, so that no tab overwrites what another one keeps.
const mine = (what) => `${what}-${document.body.dataset.person}-`;
const waiting = () =>
  device.keys().filter((key) => key.startsWith(mine("answer")) && !failed.has(key));

// One thing at a time is under way with the server.
async function alone(work) {
  if (busy) return;
  busy = true;
  hold();
  try {
    await work();
  } finally {
    busy = false;
    hold();
  }
}

// What was sent must be what undo fills in: until all is done, nobody changes the form.
function hold() {
  const form = $("#judge");
  if (busy) $("main").setAttribute("aria-busy", "true");
  else $("main").removeAttribute("aria-busy");
  if (form) form.inert = busy;
}

// Asks until our server answers; after so many of its own mistakes only { status: 500 }.
async function insist(url, options, read, attempts = Infinity) {
  let troubled = false;
  for (let attempt = 1, wait = 1; ; attempt++, wait = Math.min(2 * wait, LONGEST_WAIT)) {
    let trouble = "offline", rest = wait;
    try {
      const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(20_000) });
      if (!(answer.status in TROUBLE)) {
        const found = await read(answer);
        if (troubled) say("");
        return found;
      }
      trouble = TROUBLE[answer.status];
      rest = Math.max(wait, Number(answer.headers.get("Retry-After")) || 0);
    } catch { /* no network, or someone else's answer: the same as no server */ }
    if (trouble === "broken" && attempt >= attempts) return { status: 500 };
    const text = document.body.dataset;
    say(waiting().length ? `${text[trouble]} ${text.kept}` : text[trouble], "wrong");
    troubled = true;
    const online = new Promise((go) => addEventListener("online", go, { once: true }));
    await Promise.race([online, pause(rest)]);
  }
}

// A page of ours; a hotel's or a proxy's is thrown away.
async function read(answer) {
  const found = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!found.querySelector('link[href^="/static/page.css?"]')) throw new Error("not our page");
  return found;
}

// What our server says of a form: that all is done, or why not.
async function acknowledgement(answer) {
  const { ok, error } = await answer.json();
  if (answer.ok ? ok !== true : typeof error !== "string") throw new Error("not our server");
  return { status: answer.status, error };
}

function post(url, fields) {
  const options = { method: "POST", body: fields, headers: { Accept: "application/json" } };
  return insist(url, options, acknowledgement, ATTEMPTS);
}

async function send(key, body, again = true) {
  if (!key.startsWith(mine("answer"))) return null; // the page is someone else's by now
  const fields = new URLSearchParams(body);
  fields.set("csrf", $("[name=csrf]").value); // of this session, not of the one before
  const reply = await post("/judge", fields);
  if (reply.status !== 403 || !again) return reply;
  await show("/"); // with the token of a newer session
  return send(key, body, false);
}

const deliver = () => alone(async () => {
  if (!waiting().length) return;
  const text = document.body.dataset;
  let told = [];
  for (const key of waiting()) {
    const body = device.get(key), reply = body && await send(key, body);
    if (!reply) continue; // another tab was faster, or someone else is signed in now
    if (reply.status === 401) {
      await show("/login");
      $("main p").textContent = text.signedOut;
      return;
    }
    if (reply.status === 500) {
      failed.add(key);
      told = [text.notTaken, "wrong"];
      continue;
    }
    if (device.get(key) === body) device.drop(key);
    const refused = key.replace("answer", "refused"); // filled in again if its pair comes back
    if (reply.error) device.put(refused, body);
    else device.drop(refused);
    if (reply.error) told = [reply.error, "wrong"];
    else if (!told.length) told = [text.saved, "unseen"];
  }
  if (location.pathname === "/") await show("/");
  if (told.length) say(...told);
});

const undo = (form) => alone(async () => {
  const text = document.body.dataset;
  // The form names what it undoes: asked again, the server undoes nothing more.
  const { status, error } = await post("/undo", new URLSearchParams(new FormData(form)));
  await show("/");
  if (status === 500) say(text.notUndone, "wrong");
  else if (error) say(error, "wrong");
});
