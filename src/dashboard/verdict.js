// One verdict: why it was given, against the user's own normal; what to say of it.

import { Problem, amount, ask, card, confirm, get, h, missing, number, pill, say, table, time, userLink, verdictLink } from './kit.js';
import { columns, dial, histogram, signedBars } from './charts.js';
import { askSnoozes, feed } from './feed.js';

const HOUR_MS = 3_600_000;
const NAMES = {
  log_amount: 'Amount', amount_zscore: 'Beyond the mean', amount_percentile: 'Rank among own', velocity_ratio: 'Velocity', hour_deviation: 'Hour of day',
  day_deviation: 'Day of week', time_since_last: 'Since the last one', merchant_familiarity: 'Merchant known', is_new_user: 'New user', global_amount_flag: 'Above everyone’s p99',
};

/** The bars: all features where the model is still at hand, else the reasons that the verdict names. */
function bars(found) {
  const { verdict, contributions } = found;
  const why = new Map(verdict.reasons.map((reason) => [reason.feature, reason]));
  const rows = contributions ?? verdict.reasons;
  return rows.filter((row) => Math.abs(row.contribution) >= 0.005)
    .toSorted((one, other) => other.contribution - one.contribution)
    .map((row) => ({ name: NAMES[row.feature] ?? row.feature, value: row.contribution, text: why.get(row.feature)?.text }));
}

/** Payments in each of the 24 hours that end with this payment's. */
function velocity(verdict, payments) {
  const last = Math.floor(verdict.event_time / HOUR_MS);
  const counts = new Array(24).fill(0);
  for (const one of payments) {
    const at = Math.floor(one.event_time / HOUR_MS) - last + 23;
    if (at >= 0 && at < 24) counts[at] += 1;
  }
  return columns({
    label: `Payments of each of the 24 hours up to this one: ${counts.join(', ')}`, values: counts, hot: [23],
    names: counts.map((_, at) => (at === 23 ? 'this' : `−${23 - at} h`)),
  });
}

/** Payments as rows of a table. */
export const payments = (label, list, current = null) => table(label, ['Time (UTC)', '#Amount', 'Merchant', 'Verdict', '#Score'], list.map((one) => ({
  href: verdictLink(one),
  cells: [
    one.id === current ? h('b', null, time(one.event_time)) : h('a', { href: verdictLink(one), 'data-row': true }, time(one.event_time)),
    amount(one.amount, one.currency), one.merchant, pill(one.severity), one.score === null ? '–' : one.score.toFixed(2)],
})), 'None among the latest.');

function similar(verdict) {
  const lead = verdict.reasons[0]?.feature;
  const alike = (one) => (one.merchant === verdict.merchant ? 2 : 0) + (one.reasons[0]?.feature === lead ? 1 : 0);
  return feed.anomalies.filter((one) => one.user_id !== verdict.user_id && alike(one) > 0)
    .toSorted((one, other) => alike(other) - alike(one) || other.event_time - one.event_time).slice(0, 8);
}

async function decide(verdict, what) {
  const words = { fraud: 'It was fraud', legitimate: 'It was legitimate', snooze: 'Snooze this user' };
  const answer = await confirm({
    title: words[what], action: words[what],
    text: what === 'snooze' ? 'No notifications about this user for a day, and none of its anomalies in the list. Verdicts go on.' : 'This becomes a label: models are judged by it.',
    field: { label: 'Reason', placeholder: 'What you know', required: true },
  });
  if (!answer) return;
  try {
    if (what === 'snooze') {
      await ask('POST', '/v1/snoozes', { user_id: verdict.user_id, reason: answer.text, hours: 24 });
      await askSnoozes();
    } else await ask('POST', '/v1/labels', { verdict_id: verdict.id, label: what, by: 'dashboard', reason: answer.text });
    say(what === 'snooze' ? 'Snoozed for a day.' : `Labelled as ${what}.`, 'good');
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    say(problem.absent ? 'Not available: this server has no such route.' : problem.message, 'bad');
  }
}

async function find(id) {
  try {
    return await get(`/v1/recent/verdicts/${encodeURIComponent(id)}`);
  } catch (problem) {
    if (problem.kind !== 'no-such-verdict') throw problem;
    // Older than the end of the topic: the history has it, where there is one.
    try {
      const verdict = await get(`/v1/verdicts/${encodeURIComponent(id)}`);
      return { verdict: verdict.verdict ?? verdict, partition: null, offset: null, contributions: null };
    } catch (older) {
      throw older.absent ? problem : older;
    }
  }
}

export async function page(body, id) {
  const found = await find(id);
  const { verdict } = found;
  const of = encodeURIComponent(verdict.user_id);
  const settled = await Promise.allSettled([get(`/v1/users/${of}/profile`), get(`/v1/recent/verdicts?user=${of}&limit=300`)]);
  for (const one of settled) if (one.status === 'rejected' && !(one.reason instanceof Problem)) throw one.reason;
  const [profile, recent] = settled;
  const normal = profile.status === 'fulfilled' ? profile.value : null;
  const list = recent.status === 'fulfilled' ? recent.value.verdicts.map((one) => one.verdict) : [];
  const scored = (one) => one.fx?.amount ?? one.amount;
  const show = (value) => number(value);
  const at = new Date(verdict.event_time);

  body.append(
    h('header', { class: 'title' },
      pill(verdict.severity),
      h('h1', null, amount(verdict.amount, verdict.currency), ' to ', verdict.merchant),
      h('div', { class: 'row' },
        h('button', { type: 'button', class: 'danger', id: 'fraud', onclick: () => decide(verdict, 'fraud') }, 'Fraud'),
        h('button', { type: 'button', class: 'primary', id: 'legitimate', onclick: () => decide(verdict, 'legitimate') }, 'Legitimate'),
        h('button', { type: 'button', id: 'snooze', onclick: () => decide(verdict, 'snooze') }, 'Snooze')),
      h('p', { class: 'sub' }, 'Paid by ', h('a', { href: userLink(verdict.user_id) }, verdict.user_id), ` on ${time(verdict.event_time)} UTC. `,
        verdict.score === null ? 'No model scored it.' : `Score ${verdict.score.toFixed(3)}. `, verdict.explanation)),
    card('What made the score', verdict.score === null ? h('p', { class: 'missing' }, 'There was no model yet.') : [
      signedBars(bars(found)),
      h('p', { class: 'missing' }, found.contributions
        ? 'To the right what made it more unusual, to the left what made it less so, in steps of the forest’s mean path.'
        : 'Only what made it more unusual: the model that judged it no longer scores here.')]),
    h('div', { class: 'three' },
      card('Amounts of this user', normal || list.length ? histogram({
        label: `Amounts of the latest ${list.length} payments of this user; this one is ${number(scored(verdict))}`,
        values: list.map(scored), mark: scored(verdict), show,
        marks: normal ? [['p50', normal.amount.p50], ['p90', normal.amount.p90], ['p99', normal.amount.p99]] : [],
      }) : missing(recent.reason)),
      card('Usual hours (UTC)', normal ? dial({
        label: `Usual hours ${normal.hours.usual.join(', ')}; this payment at ${at.getUTCHours()}:${String(at.getUTCMinutes()).padStart(2, '0')}`,
        counts: normal.hours.counts, usual: normal.hours.usual, hour: at.getUTCHours(), minute: at.getUTCMinutes(),
      }) : missing(profile.reason)),
      card('Velocity, payments an hour', list.length ? velocity(verdict, list) : missing(recent.reason ?? new Problem(0, { detail: 'no payments at hand' })))),
    h('div', { class: 'two' },
      card('Latest payments of this user', recent.status === 'fulfilled' ? payments('Latest payments of this user', list.slice(0, 12), verdict.id) : missing(recent.reason)),
      card('Similar anomalies of others', payments('Similar anomalies of others', similar(verdict)))),
    card('Where it comes from', h('dl', { class: 'facts' },
      h('dt', null, 'Verdict'), h('dd', null, h('code', { id: 'verdict-id' }, verdict.id)),
      h('dt', null, 'Payment'), h('dd', null, h('code', null, verdict.tx_id)),
      h('dt', null, 'Model'), h('dd', null, verdict.model_id ? h('a', { href: `#/models/${verdict.model_id}` }, h('code', null, verdict.model_id)) : 'none yet'),
      h('dt', null, 'Position'), h('dd', null, found.partition === null ? 'from the history' : `partition ${found.partition}, offset ${found.offset} of the verdicts topic`),
      verdict.fx && [h('dt', null, 'Converted'), h('dd', null, `${number(verdict.fx.amount)} ${verdict.fx.base} at ${verdict.fx.rate}`)])));
}
