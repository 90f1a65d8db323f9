// Drawings as SVG: colours and fonts come from the style sheet, so both themes and every change of theme are right.

import { h, s } from './kit.js';

const f = (value) => Math.round(value * 10) / 10;

/** Round numbers from 0 to at least `top`, about `wanted` of them. */
export function ticks(top, wanted = 4) {
  if (!(top > 0)) return [0, 1];
  const rough = top / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((times) => times * power >= rough) * power;
  const all = [];
  for (let at = 0; at < top + step * 0.999; at += step) all.push(Number(at.toPrecision(12)));
  return all;
}

/** A line through points that never overshoots them (monotone cubic, Fritsch and Carlson). */
function smooth(points) {
  if (points.length < 3) return points.map(([x, y], at) => `${at ? 'L' : 'M'}${f(x)} ${f(y)}`).join('');
  const slopes = points.slice(1).map(([x, y], at) => (y - points[at][1]) / (x - points[at][0] || 1));
  const tangent = (at) => {
    if (at === 0) return slopes[0];
    if (at === points.length - 1) return slopes[at - 1];
    const [before, after] = [slopes[at - 1], slopes[at]];
    return before * after <= 0 ? 0 : (2 * before * after) / (before + after);
  };
  let path = `M${f(points[0][0])} ${f(points[0][1])}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[x0, y0], [x1, y1]] = [points[at - 1], points[at]];
    const third = (x1 - x0) / 3;
    path += `C${f(x0 + third)} ${f(y0 + tangent(at - 1) * third)} ${f(x1 - third)} ${f(y1 - tangent(at) * third)} ${f(x1)} ${f(y1)}`;
  }
  return path;
}

/** Redraws at every width; the function returned draws again. */
function responsive(holder, draw) {
  let width = 0;
  const again = () => { if (width > 0) draw(width); };
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now !== width) {
      width = now;
      again();
    }
  }).observe(holder);
  return again;
}

/** A chart begins with a minute, and grows to five. */
const [SPAN_MIN_MS, SPAN_MAX_MS] = [60_000, 300_000];

/**
 * Values over time. `kind` is line (an area below the first series) or bars (stacked).
 * `series`: [{ name, class, of(row) }]; rows have `at_ms`. A tip shows the row under the pointer.
 */
export function timeChart({ label, kind = 'line', series, height = 190, show = String, stepMs = 1000 }) {
  const tip = h('div', { class: 'tip', hidden: true });
  const holder = h('div', { class: 'chart' }, tip);
  let rows = [];
  let at = null;
  const edge = { left: 44, right: 8, top: 10, bottom: 22 };

  function draw(width) {
    const end = rows.length ? rows.at(-1).at_ms + (kind === 'bars' ? stepMs : 0) : 0;
    const spanMs = Math.min(SPAN_MAX_MS, Math.max(SPAN_MIN_MS, rows.length ? end - rows[0].at_ms : 0));
    const begin = end - spanMs;
    const seen = rows.filter((row) => row.at_ms >= begin - stepMs);
    const total = (row) => (kind === 'bars' ? series.reduce((sum, one) => sum + one.of(row), 0) : Math.max(...series.map((one) => one.of(row) ?? 0)));
    const marks = ticks(Math.max(...seen.map(total), 0));
    const top = marks.at(-1);
    const x = (ms) => edge.left + ((ms - begin) / spanMs) * (width - edge.left - edge.right);
    const y = (value) => height - edge.bottom - (value / top) * (height - edge.top - edge.bottom);
    const drawn = [];
    for (const mark of marks) {
      drawn.push(s('line', { class: 'grid', x1: edge.left, x2: width - edge.right, y1: f(y(mark)), y2: f(y(mark)) }));
      drawn.push(s('text', { class: 'axis', x: edge.left - 8, y: f(y(mark)) + 4, 'text-anchor': 'end' }, show(mark)));
    }
    const every = [10_000, 15_000, 30_000, 60_000, 120_000].find((ms) => spanMs / ms <= (width < 420 ? 3 : 6));
    for (let ms = end; ms >= begin && rows.length; ms -= every) {
      const back = Math.round((end - ms) / 1000);
      const anchor = back === 0 ? 'end' : 'middle';
      if (x(ms) > edge.left + 10) drawn.push(s('text', { class: 'axis', x: f(x(ms)), y: height - 5, 'text-anchor': anchor }, back === 0 ? 'now' : `−${back >= 120 ? `${back / 60} min` : `${back} s`}`));
    }
    if (kind === 'bars') {
      const room = x(stepMs) - x(0);
      const wide = Math.min(30, Math.max(1.5, room * 0.82));
      for (const row of seen) {
        let base = 0;
        for (const one of series) {
          const value = one.of(row);
          if (value > 0) drawn.push(s('rect', { class: `bar ${one.class}`, x: f(x(row.at_ms) + (room - wide) / 2), width: f(wide), y: f(y(base + value)), height: f(Math.max(0.8, y(base) - y(base + value))), rx: Math.min(2, wide / 3) }));
          base += value;
        }
      }
    } else {
      series.forEach((one, place) => {
        const points = seen.filter((row) => one.of(row) !== null).map((row) => [x(row.at_ms), y(one.of(row))]);
        if (!points.length) return;
        const path = smooth(points);
        if (place === 0) drawn.push(s('path', { class: `area ${one.class}`, d: `${path}L${f(points.at(-1)[0])} ${f(y(0))}L${f(points[0][0])} ${f(y(0))}Z` }));
        drawn.push(s('path', { class: `stroke ${one.class}`, d: path }));
        if (one.class !== 'faint') drawn.push(s('circle', { class: `dot ${one.class}`, cx: f(points.at(-1)[0]), cy: f(points.at(-1)[1]), r: 3 }));
      });
    }
    const row = at === null ? null : seen.reduce((best, one) => (!best || Math.abs(x(one.at_ms) - at) < Math.abs(x(best.at_ms) - at) ? one : best), null);
    tip.hidden = !row;
    if (row) {
      drawn.push(s('line', { class: 'cross', x1: f(x(row.at_ms)), x2: f(x(row.at_ms)), y1: edge.top, y2: height - edge.bottom }));
      tip.replaceChildren(h('b', null, new Date(row.at_ms).toLocaleTimeString()), ...series.map((one) => h('span', { class: one.class }, `${one.name} ${one.of(row) === null ? '–' : show(one.of(row))}`)));
      tip.style.left = `${Math.min(Math.max(x(row.at_ms) + 10, 0), width - 150)}px`;
    }
    const last = rows.at(-1);
    const words = last ? series.map((one) => `${one.name} ${one.of(last) === null ? 'none' : show(one.of(last))}`).join(', ') : 'nothing yet';
    const picture = s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `${label}. Last: ${words}` }, drawn);
    holder.querySelector('svg')?.remove();
    holder.prepend(picture);
  }

  const again = responsive(holder, draw);
  holder.addEventListener('pointermove', (event) => {
    at = event.clientX - holder.getBoundingClientRect().left;
    again();
  });
  holder.addEventListener('pointerleave', () => {
    at = null;
    again();
  });
  return { element: holder, update(next) { rows = next; again(); } };
}

/** Names of series with their colours. */
export const legend = (series) => h('ul', { class: 'legend' }, series.map((one) => h('li', { class: one.class }, one.name)));

/** Amounts as bars over a logarithmic scale, with one marked, and the shares of them that lie below some. */
export function histogram({ label, values, mark, marks = [], show, height = 190 }) {
  const holder = h('div', { class: 'chart' });
  const draw = (width) => {
    const all = [...values, mark, ...marks.map(([, value]) => value)].filter((value) => value > 0);
    if (!all.length) return;
    const [low, high] = [Math.log10(Math.min(...all)) - 0.05, Math.log10(Math.max(...all)) + 0.05];
    const bins = Math.max(8, Math.min(28, Math.floor(width / 22)));
    const size = (high - low) / bins;
    const counts = new Array(bins).fill(0);
    for (const value of values) if (value > 0) counts[Math.min(bins - 1, Math.floor((Math.log10(value) - low) / size))] += 1;
    const edge = { left: 8, right: 8, top: 30, bottom: 24 };
    const x = (value) => edge.left + ((Math.log10(value) - low) / (high - low)) * (width - edge.left - edge.right);
    const tall = height - edge.top - edge.bottom;
    const most = Math.max(...counts, 1);
    const step = (width - edge.left - edge.right) / bins;
    const own = mark > 0 ? Math.min(bins - 1, Math.floor((Math.log10(mark) - low) / size)) : -1;
    const drawn = counts.map((count, at) => count > 0 && s('rect', { class: `bar ${at === own ? 'hot' : 'calm'}`, x: f(edge.left + at * step + 1), width: f(step - 2), y: f(height - edge.bottom - (count / most) * tall), height: f((count / most) * tall), rx: 2 }, s('title', null, `${count} payments`)));
    drawn.push(s('line', { class: 'base', x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom }));
    let taken = -Infinity;
    for (const [name, value] of marks) {
      if (!(value > 0)) continue;
      drawn.push(s('line', { class: 'quantile', x1: f(x(value)), x2: f(x(value)), y1: edge.top - 6, y2: height - edge.bottom }));
      if (x(value) - taken > 64) {
        drawn.push(s('text', { class: 'axis', x: f(x(value)), y: height - 7, 'text-anchor': 'middle' }, `${name} ${show(value)}`));
        taken = x(value);
      }
    }
    if (mark > 0) {
      drawn.push(s('line', { class: 'mark', x1: f(x(mark)), x2: f(x(mark)), y1: edge.top - 8, y2: height - edge.bottom }));
      const anchor = x(mark) > width - 90 ? 'end' : x(mark) < 90 ? 'start' : 'middle';
      drawn.push(s('text', { class: 'marked', x: f(x(mark)), y: 14, 'text-anchor': anchor }, `this one: ${show(mark)}`));
    }
    holder.replaceChildren(s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label }, drawn.filter(Boolean)));
  };
  responsive(holder, draw);
  return holder;
}

const polar = (angle, radius) => [f(110 + radius * Math.sin(angle)), f(110 - radius * Math.cos(angle))];

/** The hours of a day around a clock: how often each has a payment, which are usual, and the one of this payment. */
export function dial({ label, counts, usual = [], hour = null, minute = 0 }) {
  const most = Math.max(...counts, 1);
  const turn = (2 * Math.PI) / 24;
  const slice = (from, to, inner, outer) => {
    const [a, b, c, d] = [polar(from, inner), polar(from, outer), polar(to, outer), polar(to, inner)];
    return `M${a}L${b}A${f(outer)} ${f(outer)} 0 0 1 ${c}L${d}A${f(inner)} ${f(inner)} 0 0 0 ${a}Z`;
  };
  const drawn = [];
  counts.forEach((count, at) => {
    const [from, to] = [at * turn + 0.02, (at + 1) * turn - 0.02];
    drawn.push(s('path', { class: 'track', d: slice(from, to, 42, 88) }));
    if (count > 0) drawn.push(s('path', { class: usual.includes(at) ? 'usual' : 'rare', d: slice(from, to, 42, 42 + 46 * Math.max(0.06, count / most)) }, s('title', null, `${at}:00 to ${at + 1}:00: ${count} payments`)));
  });
  for (const at of [0, 6, 12, 18]) {
    const [x, y] = polar(at * turn, 100);
    drawn.push(s('text', { class: 'axis', x, y: y + 4, 'text-anchor': 'middle' }, String(at)));
  }
  if (hour !== null) {
    const angle = (hour + minute / 60) * turn;
    const [[x1, y1], [x2, y2]] = [polar(angle, 0), polar(angle, 88)];
    drawn.push(s('line', { class: 'hand', x1, y1, x2, y2 }), s('circle', { class: 'pin', cx: 110, cy: 110, r: 5 }), s('circle', { class: 'pin', cx: x2, cy: y2, r: 4 }));
  }
  return s('svg', { class: 'dial', viewBox: '0 0 220 220', role: 'img', 'aria-label': label }, drawn);
}

/** Signed bars from a middle line: what raised a score to the right, what lowered it to the left. rows: [{ name, value, text }]. */
export function signedBars(rows) {
  const most = Math.max(...rows.map((row) => Math.abs(row.value)), 1e-9);
  return h('ul', { class: 'signed' }, rows.map((row) => {
    const length = (50 * Math.abs(row.value)) / most;
    const bar = s('rect', { class: row.value > 0 ? 'raises' : 'lowers', x: row.value > 0 ? 50 : 50 - length, y: 0, width: length, height: 10, rx: 0.6 });
    return h('li', null,
      h('span', { class: 'name' }, row.name),
      h('span', { class: 'bars' }, s('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s('line', { class: 'middle', x1: 50, x2: 50, y1: 0, y2: 10 }), bar)),
      h('span', { class: 'value' }, `${row.value > 0 ? '+' : '−'}${Math.abs(row.value).toFixed(2)}`),
      row.text && h('span', { class: 'why' }, row.text));
  }));
}

/** Bars side by side with names below; `hot` are the indexes of those to mark, `limit` a line. */
export function columns({ label, values, names, hot = [], limit = null, height = 150, show = String }) {
  const holder = h('div', { class: 'chart' });
  responsive(holder, (width) => {
    const edge = { left: 4, right: 4, top: 16, bottom: 22 };
    const most = Math.max(...values, limit ?? 0) || 1;
    const step = (width - edge.left - edge.right) / values.length;
    const tall = height - edge.top - edge.bottom;
    const wide = Math.min(64, step * 0.76);
    const sparse = Math.ceil((7 * Math.max(...names.map((name) => name.length))) / step);
    const drawn = values.map((value, at) => [
      s('rect', { class: `bar ${hot.includes(at) ? 'hot' : 'calm'}`, x: f(edge.left + (at + 0.5) * step - wide / 2), width: f(wide), y: f(height - edge.bottom - (value / most) * tall), height: f((value / most) * tall), rx: 2 }, s('title', null, `${names[at]}: ${show(value)}`)),
      at % sparse === 0 && s('text', { class: 'axis', x: f(Math.min(Math.max(edge.left + (at + 0.5) * step, names[at].length * 3.2), width - names[at].length * 3.2)), y: height - 6, 'text-anchor': 'middle' }, names[at]),
      hot.includes(at) && s('text', { class: 'marked', x: f(Math.min(Math.max(edge.left + (at + 0.5) * step, 20), width - 20)), y: f(height - edge.bottom - (value / most) * tall - 4), 'text-anchor': 'middle' }, show(value)),
    ]);
    holder.replaceChildren(s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label },
      drawn.flat().filter(Boolean), limit !== null && limitLine(width, height - edge.bottom - (limit / most) * tall), s('line', { class: 'base', x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom })));
  });
  return holder;
}

const limitLine = (width, y) => s('line', { class: 'quantile', x1: 4, x2: width - 4, y1: f(y), y2: f(y) });

/** A share as a bar. */
export function meter(share, label) {
  const bar = h('span', { class: 'meter', role: 'img', 'aria-label': label }, h('span'));
  bar.firstChild.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return bar;
}
