// The live stream: one for all pages. Anomalies and figures; EventSource comes back by itself, with the id of the last event it saw.
// Who is left alone (snoozes) is asked for now and then: the list leaves those out, as notifications do.

import { Problem, get } from './kit.js';

const KEPT = 500;
const SECONDS = 900;
const AGAIN_MS = 5_000;
const SNOOZES_MS = 10_000;

export const feed = { anomalies: [], seconds: [], state: 'connecting' };
const listeners = new Set();
const known = new Set();
let source = null;
let snoozed = new Map();

const tell = (what, value) => { for (const listener of listeners) listener(what, value); };

/** Hears `anomaly`, `second` and `state`; the function returned ends it. */
export function hear(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** True where nobody wants to be told of it: its user or merchant is snoozed. */
export const isSnoozed = (verdict) => [`user:${verdict.user_id}`, `merchant:${verdict.merchant}`].some((id) => snoozed.get(id) > Date.now());

/** Asks who is snoozed; told as `snoozes` where it changed. */
export async function askSnoozes() {
  const { snoozes } = await get('/v1/snoozes');
  const now = new Map(snoozes.map((one) => [one.id, one.until_ms]));
  const same = now.size === snoozed.size && [...now].every(([id, until]) => snoozed.get(id) === until);
  snoozed = now;
  if (!same) tell('snoozes', now);
}

async function askSnoozesForEver() {
  try {
    if (!document.hidden) await askSnoozes();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
  }
  setTimeout(askSnoozesForEver, SNOOZES_MS);
}

/** Keeps a verdict that is new, or with `earlier` one that came before all others. */
function take(verdict, earlier = false) {
  if (known.has(verdict.id) || (earlier && known.size >= KEPT)) return false;
  known.add(verdict.id);
  if (earlier) feed.anomalies.push(verdict);
  else feed.anomalies.unshift(verdict);
  for (const old of feed.anomalies.splice(KEPT)) known.delete(old.id);
  return true;
}

/** What was there before, put behind what the stream has brought meanwhile. */
async function before() {
  const [figures, recent] = await Promise.all([get('/v1/live'), get('/v1/recent/verdicts?severity=low&limit=200')]);
  const all = new Map([...figures.seconds, ...feed.seconds].map((one) => [one.at_ms, one]));
  feed.seconds = [...all.values()].toSorted((one, other) => one.at_ms - other.at_ms).slice(-SECONDS);
  for (const one of recent.verdicts) take(one.verdict, true);
}

function state(now) {
  feed.state = now;
  tell('state', now);
}

function open() {
  source = new EventSource('/v1/stream/verdicts?severity=low&figures=true');
  source.addEventListener('open', () => state('live'));
  source.addEventListener('error', () => {
    state('connecting');
    // Refused, and not only cut off: it does not try again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
  });
  source.addEventListener('second', (event) => {
    const figures = JSON.parse(event.data);
    feed.seconds.push(figures);
    feed.seconds.splice(0, Math.max(0, feed.seconds.length - SECONDS));
    tell('second', figures);
  });
  source.addEventListener('verdict', (event) => {
    const verdict = JSON.parse(event.data);
    if (take(verdict)) tell('anomaly', verdict);
  });
}

/** Begins, once; fails where the instance cannot be asked. */
export async function begin() {
  if (source) return;
  // Asks for a token where one is needed: a stream cannot.
  await get('/v1/live');
  open();
  await new Promise((begun) => {
    source.addEventListener('place', begun, { once: true });
    source.addEventListener('error', begun, { once: true });
  });
  await askSnoozesForEver();
  await before();
}
