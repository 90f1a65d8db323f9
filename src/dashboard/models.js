// Models: which scores, what there is, how each was judged; training, promoting, rolling back.

import { Problem, ask, card, confirm, count, every, get, h, missing, number, percent, say, table, tile, time } from './kit.js';
import { columns, meter } from './charts.js';

const states = { active: 'good', shadow: 'low', candidate: '', retired: '' };
const VERSIONS_SHOWN = 12;
const outcomes = { passed: 'good', failed: 'high', skipped: '' };

async function act(work, done) {
  try {
    await work();
    say(done, 'good');
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    say(problem.absent ? 'Not available: this server has no such route.' : problem.message, 'bad');
  }
}

function bounds(check) {
  if (check.low === undefined && check.high === undefined) return '–';
  return `${check.low === undefined ? '' : `${number(check.low)} to`} ${check.high === undefined ? 'any' : check.low === undefined ? `up to ${number(check.high)}` : number(check.high)}`;
}

/** What validation found. */
function report(found) {
  if (!found) return h('p', { class: 'missing' }, 'No report: it was imported, or it was the first one.');
  const drift = found.checks.filter((check) => check.name.startsWith('psi_') && check.value !== undefined);
  return [
    h('p', { class: 'missing' }, `Trained on ${count(found.trained_rows)} payments, judged on ${count(found.held_out_rows)} later ones.`),
    drift.length > 0 && h('h3', null, 'Drift: how far each feature has moved (population stability index)'),
    drift.length > 0 && columns({
      label: `Drift of each feature, population stability index: ${drift.map((check) => `${check.name.slice(4)} ${number(check.value)}`).join(', ')}`,
      values: drift.map((check) => check.value), names: drift.map((check) => check.name.slice(4).replaceAll('_', ' ')), show: number,
      hot: drift.flatMap((check, at) => (check.outcome === 'failed' ? [at] : [])), limit: drift[0].high ?? null,
    }),
    table('Checks', ['Check', 'Outcome', '#Value', 'Allowed', 'Note'], found.checks.map((check) => [
      check.name.replaceAll('_', ' '), h('span', { class: `pill ${outcomes[check.outcome] ?? ''}` }, check.outcome),
      check.value === undefined ? '–' : number(check.value), bounds(check), check.note ?? '']))];
}

/** How far scores had moved when each version was made, the earliest first. */
async function drift(versions) {
  const latest = versions.filter((version) => version.source !== 'import').slice(0, VERSIONS_SHOWN).toReversed();
  const reports = await Promise.all(latest.map((version) => get(`/v1/models/${encodeURIComponent(version.id)}`)));
  const scored = reports.flatMap(({ id, report: found }) => {
    const check = found?.checks.find((one) => one.name === 'psi_score' && one.value !== undefined);
    return check ? [{ id, check }] : [];
  });
  if (scored.length < 2) return null;
  return card('Drift over time: scores of each version against those of the payments it was trained on', columns({
    label: `Population stability index of the scores, by version: ${scored.map(({ id, check }) => `${id} ${number(check.value)}`).join(', ')}`,
    values: scored.map(({ check }) => check.value), names: scored.map(({ id }) => id.slice(0, 8)), show: number,
    hot: scored.flatMap(({ check }, at) => (check.outcome === 'failed' ? [at] : [])), limit: scored[0].check.high ?? null,
  }));
}

/** What a shadow would have alerted, beside what the active model did. */
function shadowing(id, found) {
  const { would_alert: alerts } = found;
  return card(`Shadow ${id}`, h('p', { class: 'missing' }, `${count(found.compared)} payments that both scored; they agree on ${found.agreement === null ? 'none yet' : percent(found.agreement)}.`),
    table('Alerts of the shadow', ['#Both', '#Only the shadow', '#Only the active one', '#Alerts of the shadow', '#Alerts of the active one'], [[alerts.both, alerts.more, alerts.fewer, alerts.shadow, alerts.active].map(count)]));
}

/** How good verdicts were, by what people found out. */
async function quality() {
  const found = await get('/v1/quality');
  const share = (value) => (value === null || value === undefined ? '–' : percent(value));
  return card('Quality by labels', h('p', { class: 'missing' }, `${count(found.labelled ?? 0)} of ${count(found.verdicts)} verdicts are labelled.`),
    table('Quality by model', ['Model', '#Labelled', '#Precision', '#Recall'], found.by_model.map((one) => [h('code', null, one.model), count(one.labelled ?? 0), share(one.precision), share(one.recall)]), 'No verdict is labelled yet.'));
}

/** What can be had of these; a route that is not there gives nothing. */
async function extras(versions) {
  const shadow = versions.find((version) => version.state === 'shadow');
  const works = [drift(versions), shadow && get(`/v1/models/${encodeURIComponent(shadow.id)}/shadow`).then((found) => shadowing(shadow.id, found)), quality()];
  const settled = await Promise.allSettled(works.filter(Boolean));
  for (const one of settled) if (one.status === 'rejected' && !(one.reason instanceof Problem)) throw one.reason;
  return settled.map((one) => one.value).filter(Boolean);
}

function progress(job) {
  if (job.status === 'queued') return h('p', null, 'Waits for its turn.');
  if (job.status === 'running') {
    const label = `${job.stage}: ${count(job.done)}${job.of ? ` of ${count(job.of)}` : ''}`;
    return h('div', null, h('p', null, label), meter(job.of ? job.done / job.of : 0.05, label));
  }
  if (job.status === 'done') return h('p', { class: 'good' }, `Model `, h('a', { href: `#/models/${job.model}` }, job.model), `: ${job.why}${job.promoted ? '; it scores now' : ''}`);
  return h('p', { class: 'bad' }, `${job.status}: ${job.why}`);
}

export async function page(body, chosen) {
  const tiles = h('div', { class: 'tiles' });
  const list = h('div', { id: 'versions' });
  const one = h('section', { class: 'card', id: 'version', hidden: true });
  const more = h('div', { class: 'page' });
  const training = h('div', { id: 'training' }, h('p', { class: 'missing' }, 'None ordered from this page.'));
  const retraining = h('div', { id: 'retraining' });
  let job = null;
  let latest = '';

  const train = async () => {
    await act(async () => {
      const accepted = await ask('POST', '/v1/train', {});
      job = accepted.status;
      await follow();
    }, 'Training ordered.');
  };
  const retrain = () => act(async () => { await ask('POST', '/v1/retrain/trigger'); await later(); }, 'Retraining ordered.');
  const rollBack = async () => {
    const sure = await confirm({ title: 'Roll back', text: 'The model that was active before scores from the next payment on.', action: 'Roll back', danger: true });
    if (sure) await act(async () => { await ask('POST', '/v1/models/rollback'); await round(); }, 'Rolled back.');
  };
  const promote = async (id) => {
    const sure = await confirm({ title: `Promote ${id}`, text: 'It scores on every instance from the next payment on. Rolling back is one step.', action: 'Promote' });
    if (sure) await act(async () => { await ask('POST', `/v1/models/${id}/promote`); await round(); }, 'Promoted.');
  };
  const shadow = (id) => act(async () => { await ask('POST', `/v1/models/${id}/shadow`); await round(); }, 'It scores beside the active one.');

  body.append(
    h('header', { class: 'title' }, h('h1', null, 'Models'), h('div', { class: 'row' },
      h('button', { type: 'button', id: 'train', class: 'primary', onclick: train }, 'Train'),
      h('button', { type: 'button', id: 'retrain', onclick: retrain }, 'Retrain now'),
      h('button', { type: 'button', id: 'rollback', onclick: rollBack }, 'Roll back'))),
    tiles, card('Versions', list), one, more, h('div', { class: 'two' }, card('Training', training), card('Retraining', retraining)));

  async function round() {
    const models = await get('/v1/models');
    const drawn = JSON.stringify(models);
    if (drawn === latest) return;
    latest = drawn;
    const active = models.models.find((version) => version.id === models.active?.model);
    tiles.replaceChildren(
      tile('Active', active?.id ?? 'none yet', models.active ? `${models.active.why}, ${time(models.active.at_ms)} UTC` : 'trained at 1,000 payments'),
      tile('Scores here', models.scoring ?? 'none', models.refused ? `refused: ${models.refused.why ?? ''}` : 'this instance'),
      tile('Trained on', active ? count(active.rows) : '–', active ? `payments, ${active.trees} trees` : ''),
      tile('Versions', count(models.models.length), `read up to ${models.position}`));
    list.replaceChildren(table('Versions', ['Model', 'State', 'Made (UTC)', '#Rows', '#Trees', 'Source', ''], models.models.map((version) => [
      h('a', { href: `#/models/${version.id}`, 'data-row': true }, h('code', null, version.id)),
      h('span', { class: `pill ${states[version.state] ?? ''}` }, version.state), time(version.created_ms), count(version.rows), count(version.trees), version.source,
      version.id === models.active?.model ? '' : h('div', { class: 'row' },
        h('button', { type: 'button', 'data-promote': version.id, 'aria-label': `Promote ${version.id}`, onclick: () => promote(version.id) }, 'Promote'),
        version.state !== 'shadow' && h('button', { type: 'button', 'aria-label': `Shadow ${version.id}`, onclick: () => shadow(version.id) }, 'Shadow'))])));
    more.replaceChildren(...await extras(models.models));
    const wanted = chosen || active?.id;
    one.hidden = !wanted;
    if (wanted) {
      try {
        const version = await get(`/v1/models/${encodeURIComponent(wanted)}`);
        one.replaceChildren(h('h2', null, 'Report of ', h('code', null, version.id)), ...[report(version.report)].flat().filter(Boolean));
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        one.replaceChildren(missing(problem));
      }
    }
  }

  async function follow() {
    if (!job) return;
    const told = await get(job);
    training.replaceChildren(progress(told));
    if (!['queued', 'running'].includes(told.status)) job = null;
  }

  async function later() {
    const status = await get('/v1/retrain/status');
    retraining.replaceChildren(h('dl', { class: 'facts' },
      h('dt', null, 'Schedule'), h('dd', null, status.schedule ? h('code', null, status.schedule) : 'off here'),
      h('dt', null, 'Next'), h('dd', null, status.next_run_ms ? `${time(status.next_run_ms)} UTC` : '–'),
      h('dt', null, 'Requested'), h('dd', null, status.requested ?? 'no'),
      h('dt', null, 'Last'), h('dd', null, status.last ? `${status.last.outcome}, ${time(status.last.began_ms)} UTC: ${status.last.why}` : 'none yet')));
  }

  await round();
  await later();
  return every(1000, async () => { await follow(); await round(); await later(); });
}
