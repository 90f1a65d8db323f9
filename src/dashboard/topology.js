// What runs where: the graph, partitions with owner, rate and lag, state, instances.

import { Problem, ask, brief, bytes, card, confirm, count, every, get, h, missing, s, say, span, table, tile } from './kit.js';
import { meter } from './charts.js';

/** Within a column: what people read first, the application's own topics next, what went wrong last. */
const rank = (name, application) => (name === 'dead-letters' ? 2 : name.startsWith(`${application}-`) ? 1 : 0);

/** The column of each node: behind the furthest of those that lead to it. */
function layers(nodes, edges) {
  const layer = new Map(nodes.map((node) => [node.name, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    for (const { from, to } of edges) if (layer.get(to) <= layer.get(from) && from !== to) layer.set(to, layer.get(from) + 1);
  }
  return layer;
}

function draw({ nodes, edges }, application, words, moving) {
  const linked = nodes.filter((node) => edges.some((edge) => edge.from === node.name || edge.to === node.name));
  const layer = layers(linked, edges);
  const depth = Math.max(...layer.values());
  const columns = Array.from({ length: depth + 1 }, (_, at) => linked.filter((node) => layer.get(node.name) === at).toSorted((one, other) => rank(one.name, application) - rank(other.name, application)));
  const [wide, tall, gap] = [220, 54, 16];
  const width = 1160;
  const height = Math.max(...columns.map((column) => column.length)) * (tall + gap) + gap;
  const place = new Map();
  columns.forEach((column, x) => column.forEach((node, y) => {
    const step = (width - wide - 8) / Math.max(1, depth);
    place.set(node.name, { x: 4 + x * step, y: (height - column.length * (tall + gap) + gap) / 2 + y * (tall + gap) });
  }));
  const paths = edges.flatMap(({ from, to }) => {
    const [a, b] = [place.get(from), place.get(to)];
    const [x0, y0, x1, y1] = [a.x + wide, a.y + tall / 2, b.x, b.y + tall / 2];
    const d = `M${x0} ${y0}C${(x0 + x1) / 2} ${y0} ${(x0 + x1) / 2} ${y1} ${x1} ${y1}`;
    return [s('path', { class: 'edge', d }), moving(from, to) && s('path', { class: 'flow', d })];
  });
  const boxes = linked.map((node) => {
    const { x, y } = place.get(node.name);
    return s('g', null,
      s('rect', { class: node.kind, x, y, width: wide, height: tall, rx: node.kind === 'topic' ? 8 : 14 }),
      s('text', { x: x + wide / 2, y: y + 23, 'text-anchor': 'middle', 'font-weight': node.kind === 'topic' ? 400 : 640 }, node.name),
      s('text', { class: 'sub', x: x + wide / 2, y: y + 41, 'text-anchor': 'middle' }, words(node)));
  });
  return s('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `The graph: ${edges.map(({ from, to }) => `${from} to ${to}`).join('; ')}` }, paths.filter(Boolean), boxes);
}

/** Input offsets by task, and when they were read. */
const places = (topology) => ({ at: performance.now(), of: new Map(topology.tasks.map((task) => [task.task, task.inputs?.[0]?.offset])) });

function rates(before, after) {
  const seconds = before ? (after.at - before.at) / 1000 : 0;
  return (task) => {
    const [then, now] = [before?.of.get(task), after.of.get(task)];
    return seconds > 0 && then !== undefined && now !== undefined ? Math.max(0, now - then) / seconds : null;
  };
}

const phases = { running: 'good', restoring: 'medium', suspended: 'low', unassigned: 'high' };

export async function page(body) {
  let before = null;
  const tiles = h('div', { class: 'tiles' });
  const graph = h('div', { class: 'graph', tabindex: '0', role: 'region', 'aria-label': 'The graph' });
  const tasks = h('div', { id: 'tasks' });
  const instances = h('div', { id: 'instances' });
  const state = h('div', { id: 'state' });
  const letters = h('div', { id: 'letters' });
  const tiers = h('div', { id: 'tiers' });
  body.append(h('h1', null, 'Topology'), tiles, card('The graph', graph), card('Partitions', tasks),
    h('div', { class: 'two' }, card('Instances', instances), card('State on this instance', state)), card('Tiers', tiers), card('Dead letters', letters));

  async function round() {
    let topology;
    try {
      topology = await get('/v1/topology');
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      graph.replaceChildren(missing(problem));
      return;
    }
    const now = places(topology);
    const rate = rates(before, now);
    before = now;
    const known = topology.tasks.map((task) => rate(task.task)).filter((value) => value !== null);
    const total = known.length ? known.reduce((sum, value) => sum + value, 0) : null;
    const restoring = topology.tasks.filter((task) => task.phase === 'restoring').length;
    tiles.replaceChildren(
      tile('Payments a second', total === null ? '–' : brief(total), `${topology.application}, all instances`),
      tile('Lag', count(topology.lag.records), topology.lag.seconds ? `payments, ${span(topology.lag.seconds)} of event time` : 'payments'),
      tile('Partitions', count(topology.tasks.length), restoring ? `${restoring} restoring` : 'none restoring'),
      tile('Instances', count(topology.instances.length), topology.instances.every((one) => one.reachable) ? 'all reachable' : 'not all reachable'));
    const inputs = new Map();
    for (const task of topology.tasks) {
      for (const input of task.inputs ?? []) {
        const sum = inputs.get(input.topic) ?? { lag: 0 };
        inputs.set(input.topic, { lag: sum.lag + (input.lag_records ?? 0) });
      }
    }
    const words = (node) => {
      if (node.kind === 'processor') return `${topology.tasks.filter((task) => task.sub_topology === node.name).length} tasks${total === null ? '' : `, ${brief(total)}/s`}`;
      const input = inputs.get(node.name);
      return input ? `${count(input.lag)} behind` : 'topic';
    };
    graph.replaceChildren(draw(topology.graph, topology.application, words, (from, to) => total > 0 && ![from, to].some((name) => ['commands', 'dead-letters'].includes(name) || name.endsWith('decisions'))));
    const worst = Math.max(...topology.tasks.map((task) => task.inputs?.[0]?.lag_records ?? 0), 1);
    tasks.replaceChildren(table('Partitions', ['Task', 'Phase', 'Owner', '#Payments/s', '#Next offset', '#Lag', '', 'Restore'], topology.tasks.map((task) => {
      const [input] = task.inputs ?? [];
      const value = rate(task.task);
      const lag = input?.lag_records ?? null;
      return [
        h('code', null, task.task), h('span', { class: `pill ${phases[task.phase] ?? ''}` }, task.phase), task.instance ?? 'nobody', value === null ? '–' : brief(value),
        input ? count(input.offset) : '–', lag === null ? '–' : count(lag), lag === null ? '' : meter(lag / worst, `${lag} behind`),
        task.phase === 'restoring' ? meter(task.restored / Math.max(1, task.restored + task.remaining), `${task.restored} of ${task.restored + task.remaining}`) : '–'];
    })));
    instances.replaceChildren(table('Instances', ['Instance', 'Address', '#Tasks', ''], topology.instances.map((one) => [
      h('code', null, one.instance), one.endpoint ?? 'not known', count(one.tasks), one.reachable ? pillOf('good', 'reachable') : pillOf('high', one.why ?? 'not reachable')])));
    await shown(tiers, async () => {
      const { tiers: found } = await get('/v1/health');
      return table('Tiers', ['Tier', '', '#Behind', 'Trouble'], found.map((one) => [
        one.tier, one.up ? pillOf('good', 'up') : pillOf('high', 'down'), `${count(one.lag_records)} records`, one.trouble ?? '–']),
      'None: this instance copies nothing to Redis or Postgres.');
    });
    await shown(state, async () => {
      const { partitions } = await get('/v1/state');
      return table('State on this instance', ['Store', '#Partition', 'Role', '#Users', '#Size', '#Age'], partitions.map((one) => [
        one.store, String(one.partition), one.role, one.users_estimate === null ? '–' : count(one.users_estimate), one.bytes === null ? '–' : bytes(one.bytes), span(one.age_ms / 1000)]));
    });
  }

  const redrive = async () => {
    const sure = await confirm({ title: 'Redrive dead letters', text: 'Each goes back to the topic it came from, once. What fails again is a dead letter again; after three times it stays one.', action: 'Redrive' });
    if (!sure) return;
    try {
      await ask('POST', '/v1/dead-letters/redrive');
      say('The redrive runs.', 'good');
      running = true;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(problem.message, 'bad');
    }
  };
  // The whole topic is read for it: once, and while a redrive runs.
  let running = true;
  const dead = () => shown(letters, async () => {
    const { letters: found, redrive: { running: runs, last, failed } } = await get('/v1/dead-letters');
    running = runs;
    const left = Object.entries(found.skipped).map(([why, number]) => `${count(number)} ${why.replaceAll('_', ' ')}`);
    return h('div', null,
      h('div', { class: 'row' },
        h('span', null, `${count(found.letters)} dead letters, ${count(found.matching)} to be redriven${left.length ? `; left: ${left.join(', ')}` : ''}.`),
        h('button', { type: 'button', id: 'redrive', disabled: running || !found.matching, onclick: redrive }, running ? 'Redriving' : 'Redrive')),
      failed ? h('p', { class: 'bad' }, failed) : last && h('p', { class: 'missing' }, `The last redrive from here sent ${count(last.redriven)} back.`),
      found.groups.length > 0 && table('Dead letters', ['Cause', 'From', '#Partition', '#Records', '#Size'], found.groups.map((group) => [
        group.cause, group.topic, String(group.partition), count(group.records), bytes(group.bytes)])));
  });

  await round();
  const ends = [every(2000, round), every(2000, async () => { if (running) await dead(); })];
  return () => ends.forEach((end) => end());
}

const pillOf = (kind, text) => h('span', { class: `pill ${kind}` }, text);

async function shown(holder, work) {
  try {
    holder.replaceChildren(await work());
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    holder.replaceChildren(missing(problem));
  }
}
