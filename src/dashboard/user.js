// One user: what is normal for them, what they did, and taking it away.

import { Problem, ask, card, confirm, count, get, h, missing, number, say, table, tile, time } from './kit.js';
import { columns, dial, histogram, meter } from './charts.js';
import { payments } from './verdict.js';

const ROUNDS = 60;
const DAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

async function history(of) {
  try {
    const answer = await get(`/v1/users/${of}/verdicts?limit=100`);
    const list = answer.verdicts ?? answer.items ?? [];
    return { list: list.map((one) => one.verdict ?? one), source: 'from the history' };
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
  }
  const answer = await get(`/v1/recent/verdicts?user=${of}&limit=300`);
  return { list: answer.verdicts.map((one) => one.verdict), source: answer.more ? 'the latest, from the end of the topic' : 'all, from the topic' };
}

/** Sends an order and follows its job until it is done. */
async function order(method, path, done) {
  try {
    const accepted = await ask(method, path);
    say('Ordered.');
    for (let round = 0; round < ROUNDS; round += 1) {
      const job = await get(accepted.status);
      if (job.status === 'done') {
        say(done, 'good');
        return accepted;
      }
      await new Promise((again) => setTimeout(again, 500));
    }
    say(`Ordered, and not done yet: ${accepted.status}`);
    return accepted;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    say(problem.absent ? 'Not available: this server has no such route.' : problem.message, 'bad');
    return null;
  }
}

/** Each place that an erasure reached, asked anew. */
async function showReceipt(body, path) {
  try {
    const { job_id: job, places } = await get(path);
    body.children[0].after(card('Receipt of the erasure', h('p', { class: 'missing' }, h('code', null, job)), table('Receipt', ['Place', 'Found', 'Until', 'Why'],
      places.map((one) => [one.place, one.found, one.until ?? '–', one.why]))));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    body.children[0].after(card('Receipt of the erasure', missing(problem)));
  }
}

export async function page(body, user) {
  const of = encodeURIComponent(user);
  const again = () => { body.replaceChildren(); page(body, user); };
  const reset = async () => {
    const sure = await confirm({ title: 'Reset this profile', text: 'What is normal for this user is forgotten and learnt anew from the next payment on. Payments and verdicts stay.', action: 'Reset', danger: true });
    if (sure && await order('DELETE', `/v1/users/${of}/profile`, 'The profile is reset.')) again();
  };
  const erase = async () => {
    const sure = await confirm({
      title: 'Erase this user', action: 'Erase', danger: true,
      text: 'The user is taken from every place that can be told to: state, changelog, databases, training data. A receipt lists each place, and those that expire by themselves with the date.',
    });
    const accepted = sure && await order('POST', `/v1/users/${of}/erase`, 'Erased.');
    if (!accepted) return;
    body.replaceChildren();
    await page(body, user);
    if (accepted.receipt) await showReceipt(body, accepted.receipt);
  };
  body.append(h('header', { class: 'title' }, h('h1', null, user),
    h('div', { class: 'row' },
      h('button', { type: 'button', id: 'reset', onclick: reset }, 'Reset profile'),
      h('button', { type: 'button', class: 'danger', id: 'erase', onclick: erase }, 'Erase'))));

  const [profile, past] = await Promise.allSettled([get(`/v1/users/${of}/profile`), history(of)]);
  for (const one of [profile, past]) if (one.status === 'rejected' && !(one.reason instanceof Problem)) throw one.reason;
  const list = past.status === 'fulfilled' ? past.value.list : [];
  if (profile.status === 'fulfilled') {
    const { count: seen, amount, velocity, hours, days, merchants, first_seen: first, last_seen: last, position, source, age_ms: age } = profile.value;
    const most = Math.max(...merchants.top.map((one) => one.count), 1);
    body.append(
      h('div', { class: 'tiles' },
        tile('Payments', count(seen), first ? `since ${first.slice(0, 10)}` : ''),
        tile('Mean amount', number(amount.mean), `± ${number(amount.deviation)} ${amount.currency ?? ''}`),
        tile('Half are below', amount.p50 === null ? '–' : number(amount.p50), amount.p99 === null ? '' : `p90 ${number(amount.p90)}, p99 ${number(amount.p99)}`),
        tile('Velocity', `${number(velocity.hourly_rate)} / h`, `${velocity.last_hour} in the last hour seen`)),
      h('div', { class: 'three' },
        card('Amounts', histogram({ label: `Amounts of the latest ${list.length} payments`, values: list.map((one) => one.fx?.amount ?? one.amount), mark: 0, show: number, marks: [['p50', amount.p50], ['p90', amount.p90], ['p99', amount.p99]] })),
        card('Usual hours (UTC)', dial({ label: `Usual hours: ${hours.usual.join(', ')}`, counts: hours.counts, usual: hours.usual })),
        card('Days', columns({ label: `Payments by day of the week: ${DAYS.map((day, at) => `${day} ${days.counts[at]}`).join(', ')}`, values: days.counts, names: DAYS, show: count }))),
      card(`Merchants (${merchants.known} known)`, table('Merchants', ['Merchant', '#Payments', ''], merchants.top.map((one) => [one.merchant, count(one.count), meter(one.count / most, `${count(one.count)} payments`)]))),
      card('Where it stands', h('dl', { class: 'facts' },
        h('dt', null, 'Last seen'), h('dd', null, last ? `${last.slice(0, 19).replace('T', ' ')} UTC` : 'never'),
        h('dt', null, 'Position'), h('dd', null, position ? `partition ${position.partition}, input offset ${position.input_offset}, changelog offset ${position.changelog_offset}` : 'not known'),
        h('dt', null, 'Source'), h('dd', null, `${source}, ${number(age / 1000)} s old`))));
  } else {
    body.append(card('Profile', missing(profile.reason)));
  }
  body.append(card('Payments', past.status === 'fulfilled'
    ? [h('p', { class: 'missing' }, `${count(list.length)} payments, ${past.value.source}. Times are UTC; latest ${list.length ? time(list[0].event_time) : 'none'}.`), payments('Payments of this user', list.slice(0, 50))]
    : missing(past.reason)));
}
