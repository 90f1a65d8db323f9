// What every page uses: elements, requests, words for numbers and times. Texts of payments come in as text nodes only.

const SVG = 'http://www.w3.org/2000/svg';

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'disabled') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element. */
export const h = (tag, properties, ...children) => build(document.createElement(tag), properties, children);
/** An SVG element. */
export const s = (tag, properties, ...children) => build(document.createElementNS(SVG, tag), properties, children);

/** What the server said that went wrong (RFC 9457). */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.errors?.length ? body.errors.map((one) => one.detail).join('; ') : (body?.detail ?? body?.title ?? `status ${status}`));
    this.status = status;
    this.title = body?.title ?? '';
    this.kind = (body?.type ?? '').replace('/problems/', '');
  }
  /** True where this server has no such route or method. */
  get absent() { return this.kind === 'no-such-route' || this.status === 405; }
}

async function send(method, path, body) {
  const options = { method, headers: {}, credentials: 'same-origin' };
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, { title: 'Not reachable', detail: 'The instance does not answer.' });
  }
  const text = await response.text();
  let json = null;
  try { json = text ? JSON.parse(text) : null; } catch { json = null; }
  if (!response.ok) throw new Problem(response.status, json);
  return json;
}

let signing = null;

/** A request; where a token is needed it is asked for, and the request sent again. */
export async function ask(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    signing ??= signIn().finally(() => { signing = null; });
    await signing;
    return send(method, path, body);
  }
}

export const get = (path) => ask('GET', path);

function signIn() {
  return new Promise((done, failed) => {
    const token = h('input', { type: 'password', id: 'token', required: true, autocomplete: 'off' });
    const wrong = h('p', { class: 'bad', role: 'alert' });
    const dialog = h('dialog', { 'aria-labelledby': 'sign-title' },
      h('h2', { id: 'sign-title' }, 'Sign in'),
      h('p', null, 'This instance answers to tokens only. The token is exchanged for a cookie that scripts cannot read.'),
      h('form', {
        onsubmit: async (event) => {
          event.preventDefault();
          try {
            await send('POST', '/v1/session', { token: token.value });
            dialog.close('in');
          } catch (problem) {
            wrong.textContent = problem.message;
          }
        },
      }, h('label', { for: 'token' }, 'Token'), token, wrong, h('div', { class: 'row' }, h('button', { class: 'primary' }, 'Sign in'))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      if (dialog.returnValue === 'in') done();
      else failed(new Problem(401, { title: 'Not signed in', detail: 'A token is needed.' }));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A word at the edge of the page, for a while. */
export function say(text, kind = '') {
  const toast = h('div', { class: `toast ${kind}` }, text);
  document.getElementById('toasts').append(toast);
  setTimeout(() => toast.remove(), 6000);
}

/** Asks a question with a field of text, if one is wanted; gives { text }, or null. */
export function confirm({ title, text, action, danger = false, field = null }) {
  return new Promise((done) => {
    const input = field && h('input', { id: 'confirm-field', type: 'text', placeholder: field.placeholder ?? '', required: field.required, autocomplete: 'off' });
    const dialog = h('dialog', { 'aria-labelledby': 'confirm-title' },
      h('h2', { id: 'confirm-title' }, title),
      h('p', null, text),
      h('form', { onsubmit: (event) => { event.preventDefault(); dialog.close('yes'); } },
        input && h('label', { for: 'confirm-field' }, field.label), input,
        h('div', { class: 'row' },
          h('button', { type: 'button', onclick: () => dialog.close('') }, 'Cancel'),
          h('button', { class: danger ? 'danger' : 'primary', id: 'confirm-yes' }, action))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      done(dialog.returnValue === 'yes' ? { text: input?.value ?? '' } : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** What is shown where something cannot be. */
export const missing = (problem) => h('p', { class: 'missing' },
  problem.absent ? 'Not available: this server has no such route.' : problem.status === 403
    ? `Not allowed: ${problem.message}.` : `Not available: ${problem.message}`);

const counts = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const money = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const count = (value) => counts.format(Math.round(value));
export const brief = (value) => (Math.abs(value) < 10_000 ? counts.format(Math.round(value)) : short.format(value));
export const amount = (value, currency) => money.format(value) + (currency ? ` ${currency}` : '');
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.001 ? 3 : 2)} %`;
export const number = (value) => (Math.abs(value) >= 100 ? counts.format(Math.round(value)) : String(Number(value.toPrecision(3))));
export const bytes = (value) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = value > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(value) / 10)) : 0;
  return `${Number((value / 1024 ** power).toPrecision(3))} ${units[power]}`;
};
export const time = (ms) => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);
export const span = (seconds) => {
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= 2 * length) return `${Number((seconds / length).toPrecision(3))} ${unit}`;
  }
  return `${Number(seconds.toPrecision(3))} s`;
};

/** A severity as a pill. */
export const pill = (severity) => h('span', { class: `pill ${severity.toLowerCase()}` }, severity === 'NONE' ? 'normal' : severity.toLowerCase());

/** A card with a heading. */
export const card = (title, ...children) => h('section', { class: 'card' }, h('h2', null, title), children);

/** A figure with its name. */
export const tile = (label, value, note = '') => h('div', { class: 'tile' }, h('span', { class: 'label' }, label), h('strong', { class: String(value).length > 12 && 'long' }, value), h('span', { class: 'note' }, note));

/** A table: names of columns (those that begin with # are numbers), rows of cells. */
export function table(label, columns, rows, empty = 'None.') {
  if (!rows.length) return h('p', { class: 'missing' }, empty);
  const numeric = columns.map((name) => name.startsWith('#'));
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label },
    h('table', null,
      h('thead', null, h('tr', null, columns.map((name, at) => h('th', { scope: 'col', class: numeric[at] && 'number' }, name.replace('#', ''))))),
      h('tbody', null, rows.map((row) => h('tr', { 'data-row': row.href ? true : null }, (row.cells ?? row).map((cell, at) => h('td', { class: numeric[at] && 'number' }, cell)))))));
}

/** Repeats something while a page is shown; the function returned ends it. */
export function every(ms, work) {
  let over = false;
  const round = async () => {
    if (over) return;
    if (!document.hidden) {
      try { await work(); } catch (problem) { if (!(problem instanceof Problem)) throw problem; }
    }
    if (!over) setTimeout(round, ms);
  };
  round();
  return () => { over = true; };
}

export const verdictLink = (verdict) => `#/verdict/${encodeURIComponent(verdict.id)}`;
export const userLink = (user) => `#/user/${encodeURIComponent(user)}`;
