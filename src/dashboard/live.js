// Live: rate, latency, share of alerts, severities over time, and the newest anomalies.

import { amount, brief, clock, count, every, get, h, number, percent, pill, span, tile, verdictLink } from './kit.js';
import { legend, timeChart } from './charts.js';
import { feed, hear, isSnoozed } from './feed.js';

const SHOWN = 40;
const STEP_MS = 5_000;
const severities = ['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'];

/** One anomaly as a row. */
export const row = (verdict) => h('a', { class: `anomaly ${verdict.severity.toLowerCase()}`, href: verdictLink(verdict), 'data-row': true, 'data-id': verdict.id },
  pill(verdict.severity),
  h('span', { class: 'score' }, verdict.score.toFixed(2)),
  h('span', { class: 'what' },
    h('b', null, verdict.user_id), ' paid ', h('b', null, amount(verdict.amount, verdict.currency)), ' to ', h('b', null, verdict.merchant)),
  h('time', { datetime: new Date(verdict.event_time).toISOString() }, clock(verdict.event_time)),
  h('span', { class: 'why' }, verdict.explanation));

/** Seconds put together into steps of five. */
function steps(seconds) {
  const all = [];
  for (const one of seconds) {
    const at_ms = one.at_ms - (one.at_ms % STEP_MS);
    let last = all.at(-1);
    if (last?.at_ms !== at_ms) {
      last = { at_ms, severities: [0, 0, 0, 0] };
      all.push(last);
    }
    one.severities.forEach((value, at) => { last.severities[at] += value; });
  }
  return all;
}

const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);

/** Each second with the mean of the five that end with it. */
const means = (seconds) => seconds.map((one, at) => {
  const five = seconds.slice(Math.max(0, at - 4), at + 1);
  return { ...one, mean: sum(five, (each) => each.verdicts) / five.length };
});

/** What the tiles say. */
export function figures(seconds) {
  const last = seconds.slice(-10);
  const minute = seconds.slice(-60);
  const scored = sum(minute, (one) => one.scored);
  const alerts = sum(minute, (one) => sum(one.severities, (value) => value));
  const commits = last.filter((one) => one.commit_p99_ms !== null);
  return {
    rate: last.length ? sum(last, (one) => one.verdicts) / last.length : null,
    alerts: scored ? alerts / scored : null,
    p99: commits.length ? Math.max(...commits.map((one) => one.commit_p99_ms)) : null,
    p50: commits.length ? sum(commits, (one) => one.commit_p50_ms) / commits.length : null,
  };
}

export function page(body) {
  let paused = false;
  let waiting = 0;
  let least = 'LOW';
  let wanted = '';

  const tiles = h('div', { class: 'tiles' });
  const lag = { records: null, seconds: null };
  const rates = [
    { name: 'mean of 5 s', class: 'first', of: (one) => one.mean },
    { name: 'each second', class: 'faint', of: (one) => one.verdicts },
  ];
  const commits = [
    { name: 'p99', class: 'second', of: (one) => one.commit_p99_ms },
    { name: 'p50', class: 'first', of: (one) => one.commit_p50_ms },
  ];
  const alerts = severities.map((name, at) => ({ name: name.toLowerCase(), class: name.toLowerCase(), of: (one) => one.severities[at] }));
  const rate = timeChart({ label: 'Payments scored a second', series: rates, show: brief });
  const latency = timeChart({ label: 'Time of commits in milliseconds', series: commits, show: number });
  const severity = timeChart({ label: 'Anomalies by severity, of five seconds each', kind: 'bars', series: alerts, show: brief, stepMs: STEP_MS });

  const list = h('div', { class: 'anomalies', id: 'anomalies', role: 'list', 'aria-label': 'Newest anomalies' });
  const note = h('p', { class: 'missing', id: 'list-note' });
  const snoozes = h('p', { class: 'missing', id: 'snoozed-note' });
  const fits = (verdict) => !isSnoozed(verdict) && severities.indexOf(verdict.severity) >= severities.indexOf(least)
    && (!wanted || [verdict.user_id, verdict.merchant, verdict.explanation, verdict.id].some((text) => text.toLowerCase().includes(wanted)));
  const item = (verdict) => h('div', { role: 'listitem' }, row(verdict));

  const pause = h('button', { id: 'pause', type: 'button', 'aria-pressed': 'false', onclick: () => hold(!paused) }, 'Pause');
  const filter = h('input', { id: 'filter', type: 'search', placeholder: 'User, merchant or reason', 'aria-label': 'Only anomalies with this text', oninput: () => { wanted = filter.value.trim().toLowerCase(); fill(); } });
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Severity from' }, severities.map((name) => h('button', {
    type: 'button', class: name.toLowerCase(), 'data-least': name, 'aria-pressed': String(name === least),
    onclick: () => {
      least = name;
      for (const chip of chips.children) chip.setAttribute('aria-pressed', String(chip.dataset.least === least));
      fill();
    },
  }, name === 'CRITICAL' ? 'critical' : `${name.toLowerCase()}+`)));

  function hold(now) {
    paused = now;
    pause.setAttribute('aria-pressed', String(paused));
    if (!paused) {
      waiting = 0;
      fill();
    }
    label();
  }

  function label() {
    pause.textContent = paused ? `Go on${waiting ? ` (${waiting} new)` : ''}` : 'Pause';
  }

  function tell() {
    const left = feed.anomalies.filter(isSnoozed).length;
    snoozes.textContent = left ? `${count(left)} of snoozed users or merchants are left out.` : '';
    note.textContent = list.children.length ? '' : feed.anomalies.length ? 'None of the latest anomalies fits.' : 'No anomaly yet: the first model is trained once 1,000 payments are logged.';
  }

  function fill() {
    list.replaceChildren(...feed.anomalies.filter(fits).slice(0, SHOWN).map(item));
    tell();
  }

  function draw() {
    const now = figures(feed.seconds);
    tiles.replaceChildren(
      tile('Payments a second', now.rate === null ? '–' : brief(now.rate), 'mean of 10 s, all instances'),
      tile('Alert rate', now.alerts === null ? '–' : percent(now.alerts), 'of scored payments, 1 min'),
      tile('Commit, p99', now.p99 === null ? '–' : `${number(now.p99)} ms`, now.p50 === null ? 'this instance' : `p50 ${number(now.p50)} ms, this instance`),
      tile('Lag', lag.records === null ? '–' : count(lag.records), lag.seconds === null ? 'payments behind' : lag.records ? `payments behind, ${span(lag.seconds)} of event time` : 'payments behind'));
    rate.update(means(feed.seconds));
    latency.update(feed.seconds);
    severity.update(steps(feed.seconds));
  }

  body.append(
    h('h1', { class: 'quiet' }, 'Live'),
    tiles,
    h('div', { class: 'charts' },
      h('section', { class: 'card' }, h('div', { class: 'head' }, h('h2', null, 'Payments a second'), legend(rates)), rate.element),
      h('section', { class: 'card' }, h('div', { class: 'head' }, h('h2', null, 'Commit time, ms'), legend(commits)), latency.element)),
    h('section', { class: 'card' }, h('div', { class: 'head' }, h('h2', null, 'Anomalies by severity'), legend(alerts)), severity.element),
    h('section', { class: 'card' },
      h('div', { class: 'head' }, h('h2', null, 'Newest anomalies'), h('div', { class: 'tools' }, chips, filter, pause)),
      note, list, snoozes));
  fill();
  draw();

  const deaf = hear((what, value) => {
    if (what === 'second') draw();
    if (what === 'snoozes' && !paused) fill();
    if (what !== 'anomaly') return;
    if (paused) {
      waiting += 1;
      label();
    } else if (fits(value)) {
      const fresh = item(value);
      fresh.firstChild.classList.add('fresh');
      list.prepend(fresh);
      while (list.children.length > SHOWN) list.lastChild.remove();
      tell();
    }
  });
  const end = every(2000, async () => {
    const topology = await get('/v1/topology');
    lag.records = topology.lag.records;
    lag.seconds = topology.lag.seconds;
  });
  return () => { deaf(); end(); };
}
