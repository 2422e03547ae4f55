"use strict";
// Every page of an annotator. Without this script its forms work all the same.
// With it, the next page replaces this one's body, and nothing that was typed is lost.

const IDLE = 60_000; // milliseconds without a sign of life after which nobody is reading
const DRAFTS = 11; // of the pair that is shown, and of the ten before it for whoever undoes them

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

// The form: what stands in it, with the time so far, is there again whenever its pair is.

function filledIn(form) {
  tick();
  form.elements.milliseconds.value = Math.round(active);
  const fields = new URLSearchParams(new FormData(form));
  fields.delete("csrf"); // it is the session's, and no part of what was said
  return fields.toString();
}

const drafts = () => new Map(JSON.parse(tab.get("drafts") ?? "[]"));

function draft() {
  const form = $("#judge"), kept = drafts();
  if (!form) return;
  kept.delete(form.elements.assignment.value); // so that the newest comes last
  kept.set(form.elements.assignment.value, filledIn(form));
  tab.put("drafts", JSON.stringify([...kept].slice(-DRAFTS)));
}
addEventListener("pagehide", draft);

function signOut() {
  // after the draft that leaving the page makes
  addEventListener("pagehide", () => tab.drop("drafts"), { once: true });
}

function refill(form) {
  const name = form.elements.assignment.value, keys = [mine("answer") + name, mine("refused") + name];
  const found = drafts().get(name) ?? device.get(keys[0]) ?? device.get(keys[1]);
  const values = new URLSearchParams(found ?? "");
  active = Number(values.get("milliseconds"));
  if (!found) return;
  for (const field of form.querySelectorAll("input[type=radio], input[type=checkbox]"))
    field.checked = values.getAll(field.name).includes(field.value);
  form.elements.comment.value = values.get("comment");
  askCriteria(form);
}

function askCriteria(form) {
  // of whoever could judge; without this script the server asks
  const side = form.elements.side.value, judged = !["cannot_judge", "unwilling"].includes(side);
  for (const field of form.querySelectorAll("[data-required] input")) field.required = judged;
}

function judge(form) {
  if (busy) return;
  const key = mine("answer") + form.elements.assignment.value;
  device.put(key, filledIn(form));
  failed.delete(key);
  deliver();
}

// Pages.

function say(text, kind = "") {
  const status = $("#status");
  if (!status) return;
  status.textContent = text;
  status.className = kind;
}

function begin() {
  const form = $("#judge"), notice = $("[data-again]");
  ticked = touched = performance.now();
  hold();
  if (form) refill(form);
  if (notice) lookAgain(notice);
}

function turnTo(page) {
  draft();
  document.title = page.title;
  document.documentElement.lang = page.documentElement.lang;
  document.body.replaceWith(document.adoptNode(page.body));
  scrollTo(0, 0);
  $("main").focus({ preventScroll: true });
  begin();
}

const fetched = (url) => insist(url, { headers: { Accept: "text/html" } }, read);
const show = async (url) => turnTo(await fetched(url));

// A page that waits for pairs stays as it is, with whoever reads it, until there is another.
async function lookAgain(notice) {
  while (notice.isConnected) {
    await pause(notice.dataset.again);
    const page = await fetched("/");
    if (notice.isConnected && !busy && !page.querySelector("[data-again]")) turnTo(page);
  }
}

async function open(dialog, url) {
  const text = dialog.querySelector("div.text");
  try {
    if (text && !text.hasChildNodes()) {
      const page = await read(await fetch(url));
      text.replaceChildren(...page.querySelector("article.guidelines").children);
    }
    if (dialog.isConnected) dialog.showModal();
  } catch {
    say(document.body.dataset.unread, "wrong");
  }
}

// Keys, clicks and forms: heard at the document, because its body is replaced.

function spoken(field) {
  const label = field.labels[0].cloneNode(true);
  for (const part of label.querySelectorAll("[aria-hidden]")) part.remove();
  return label.textContent.trim();
}

function press(target) {
  if (target.matches("textarea")) return target.focus();
  const optional = target.type === "radio" && !target.required;
  if (optional && target.checked) target.checked = false;
  else target.click();
  if (!target.matches("input")) return;
  $("main").focus({ preventScroll: true }); // in a group, an arrow that scrolls would choose
  say(target.checked ? spoken(target) : "", "unseen");
}

document.addEventListener("keydown", (event) => {
  const form = $("#judge"), writing = event.target.matches("textarea, input[type=text]");
  const control = event.ctrlKey || event.metaKey;
  if (writing && event.key === "Escape") return event.target.blur();
  if (event.key === "Enter" && form && !$("dialog[open]")) {
    if (writing ? !control : event.target.matches("a, button, summary")) return;
    event.preventDefault();
    if (event.repeat) return; // held down: the next pair is not answered by it
    askCriteria(form);
    return form.requestSubmit();
  }
  if (writing || control || event.altKey || event.isComposing || event.repeat) return;
  if ($("dialog[open]")) return;
  const target = $(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!target) return;
  event.preventDefault();
  if (!target.closest("[inert]")) press(target);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-dialog]");
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open($(`#${link.dataset.dialog}`), link.href);
});

document.addEventListener("change", (event) => {
  if (event.target.form?.id === "judge") askCriteria(event.target.form);
});

document.addEventListener("submit", (event) => {
  if (event.target.matches("[action='/logout']")) signOut();
  const ours = { judge, undo }[event.target.id];
  if (!ours) return;
  event.preventDefault();
  ours(event.target);
});

begin();
deliver();
