// From an address to its page; keys; colours.

import { Problem, get, h, missing, say, userLink, verdictLink } from './kit.js';
import { begin, hear } from './feed.js';
import * as live from './live.js';
import * as verdict from './verdict.js';
import * as user from './user.js';
import * as topology from './topology.js';
import * as models from './models.js';
import * as load from './load.js';

const pages = { live, verdict, user, topology, models, load };
const main = document.getElementById('main');
const root = document.documentElement;
let leave = null;

function place() {
  const [, name = 'live', ...rest] = location.hash.split('/');
  let argument = '';
  try { argument = decodeURIComponent(rest.join('/')); } catch { argument = ''; }
  return { name: pages[name] ? name : 'live', argument };
}

async function show() {
  const { name, argument } = place();
  leave?.();
  leave = null;
  for (const tab of document.querySelectorAll('#tabs a')) {
    if (tab.dataset.page === name) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  const body = h('div', { class: `page ${name}` });
  main.replaceChildren(body);
  document.title = `Mangrove: ${argument || name}`;
  const shown = location.hash;
  try {
    const left = await pages[name].page(body, argument);
    if (location.hash === shown) leave = left;
    else left?.();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    body.append(h('h1', null, name), missing(problem));
  }
}

function paint(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
}

function otherColours() {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  const theme = dark ? 'light' : 'dark';
  localStorage.setItem('theme', theme);
  paint(theme);
}

function step(by) {
  const rows = [...main.querySelectorAll('[data-row]')];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  const row = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))];
  row.focus();
  row.scrollIntoView({ block: 'nearest' });
}

function press(event) {
  const typing = event.target.closest('input, select, textarea, dialog');
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const tabs = [...document.querySelectorAll('#tabs a:not([hidden])')];
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    '/': () => document.getElementById('search').focus(),
    '?': () => document.getElementById('keys').showModal(),
    d: otherColours,
    p: () => document.getElementById('pause')?.click(),
  };
  const act = keys[event.key] ?? (/^[1-9]$/.test(event.key) && tabs[event.key - 1] ? () => tabs[event.key - 1].click() : null);
  if (act) {
    event.preventDefault();
    act();
  }
}

function find(event) {
  event.preventDefault();
  const input = document.getElementById('search');
  const wanted = input.value.trim();
  if (!wanted) return;
  input.value = '';
  input.blur();
  location.hash = /^.+:\d+:\d+$/.test(wanted) ? verdictLink({ id: wanted }) : userLink(wanted);
}

paint(localStorage.getItem('theme'));
document.getElementById('theme').addEventListener('click', otherColours);
document.getElementById('help').addEventListener('click', () => document.getElementById('keys').showModal());
document.getElementById('find').addEventListener('submit', find);
document.addEventListener('keydown', press);
addEventListener('hashchange', show);
hear((what, now) => {
  if (what !== 'state') return;
  const link = document.getElementById('link');
  link.className = `link ${now}`;
  link.lastChild.textContent = now;
});
get('/v1/demo/load').then(() => { document.querySelector('#tabs [data-page=load]').hidden = false; }, () => {});
begin().catch((problem) => say(problem.message, 'bad')).finally(show);
