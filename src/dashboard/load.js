// Load: synthetic payments, started and stopped here. Only a demo has the route.

import { Problem, ask, card, count, every, get, h, missing, number, say, table, tile } from './kit.js';
import { meter } from './charts.js';

/** Fields of the order: name, label, what it begins with, bounds, and by what the figure is divided. */
const FIELDS = [
  ['rate', 'Payments a second', 500, { min: 1, max: 100_000, step: 1 }, 1],
  ['users', 'People', 50_000, { min: 1, max: 200_000, step: 1 }, 1],
  ['anomalies', 'Anomalies, %', 1, { min: 0, max: 50, step: 'any' }, 100],
  ['late', 'Late, %', 0, { min: 0, max: 100, step: 'any' }, 100],
  ['out_of_order', 'Out of order, %', 0, { min: 0, max: 100, step: 'any' }, 100],
  ['poison', 'Broken, %', 0, { min: 0, max: 100, step: 'any' }, 100],
  ['duration_s', 'Seconds (none: until stopped)', '', { min: 1, step: 1 }, 1],
];

/** What was put in, and found. */
const found = (anomalies) => table('Anomalies put in', ['Kind', '#Put in', '#Found', ''], anomalies.map((one) => {
  const { kind, sent, flagged } = one;
  return [kind.replaceAll('_', ' '), count(sent), count(flagged), meter(sent ? flagged / sent : 0, `${flagged} of ${sent}`)];
}), 'None came back yet.');

const latency = (of) => (of ? `p50 ${number(of.p50)}, p99.9 ${number(of.p99_9)}, most ${number(of.max)}` : 'from when each was due');

export async function page(body) {
  const inputs = FIELDS.map(([name, label, value, bounds]) => [name, h('label', { for: `load-${name}` }, label), h('input', { id: `load-${name}`, type: 'number', value, ...bounds })]);
  const start = h('button', { class: 'primary', id: 'start' }, 'Start');
  const stop = h('button', { type: 'button', class: 'danger', id: 'stop', onclick: () => order('DELETE') }, 'Stop');
  const tiles = h('div', { class: 'tiles' });
  const kinds = h('div', { id: 'kinds' });
  const wrong = h('p', { class: 'bad', role: 'alert' });

  const wish = () => Object.fromEntries(FIELDS.flatMap(([name, , , , unit], at) => {
    const { value } = inputs[at][2];
    return value === '' ? [] : [[name, Number(value) / unit]];
  }));

  async function order(method, wanted) {
    wrong.textContent = '';
    try {
      show(await ask(method, '/v1/demo/load', wanted));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      wrong.textContent = problem.message;
    }
  }

  function show(status) {
    const { state, progress, report } = status;
    const running = state === 'running' || state === 'ending';
    start.disabled = running;
    stop.disabled = state === 'ending' || state === 'stopped';
    const now = (running && progress) || report || progress;
    tiles.replaceChildren(
      tile('State', state, { demo: 'the demo’s own payments', running: 'a load from this page', ending: 'the last payments are waited for', stopped: 'nothing is sent' }[state] ?? ''),
      tile('Sent', now ? count(now.sent) : '–', now ? `in ${number(now.seconds)} s, ${number(now.sent / Math.max(1, now.seconds))} a second` : ''),
      tile('Answered', now ? count(now.verdicts + now.dead_letters) : '–', now ? `${count(now.verdicts)} verdicts, ${count(now.dead_letters)} dead letters` : ''),
      tile('Latency, p99', now?.latency_ms ? `${number(now.latency_ms.p99)} ms` : '–', latency(now?.latency_ms)));
    kinds.replaceChildren(now ? found(now.anomalies) : h('p', { class: 'missing' }, 'No load was started from this page yet.'));
    if (status.error) wrong.textContent = status.error;
  }

  let first;
  try {
    first = await get('/v1/demo/load');
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    body.append(h('h1', null, 'Load'), card('Synthetic payments', missing(problem)));
    return undefined;
  }
  body.append(
    h('h1', null, 'Load'), tiles,
    card('Synthetic payments', h('form', {
      class: 'order',
      onsubmit: (event) => {
        event.preventDefault();
        order('POST', wish()).then(() => { if (!wrong.textContent) say('Started.', 'good'); });
      },
    }, h('div', { class: 'fields' }, inputs.map(([, label, input]) => h('div', null, label, input))), wrong, h('div', { class: 'row' }, start, stop))),
    card('Anomalies put in, and found', kinds));
  show(first);
  return every(1000, async () => show(await get('/v1/demo/load')));
}
