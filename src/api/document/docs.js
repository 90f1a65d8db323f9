// Shows /openapi.json: every operation with its parameters, body and answers, and a way to try it. Text only ever becomes text nodes.
"use strict";

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

let api;

const resolve = (schema) => {
  const to = schema && schema.$ref;
  return to ? to.slice(2).split("/").reduce((at, part) => at[part], api) : schema;
};

/** A schema as a sketch of the JSON it describes, with words beside it. */
const sketch = (schema, indent = "", seen = []) => {
  if (schema && schema.$ref && seen.includes(schema.$ref)) return "…";
  if (schema && schema.$ref) seen = [...seen, schema.$ref];
  const given = resolve(schema);
  if (given === true || given === undefined) return "any";
  if (given.const !== undefined) return JSON.stringify(given.const);
  if (given.enum) return given.enum.map((value) => JSON.stringify(value)).join(" | ");
  const parts = [];
  for (const choice of given.oneOf || given.anyOf || []) parts.push(sketch(choice, indent, seen));
  const properties = { ...(given.properties || {}) };
  const required = new Set(given.required || []);
  for (const part of given.allOf || []) {
    const whole = resolve(part);
    Object.assign(properties, whole.properties || {});
    (whole.required || []).forEach((name) => required.add(name));
  }
  if (Object.keys(properties).length) {
    const inner = indent + "  ";
    const lines = Object.entries(properties).map(([name, property]) => {
      const text = (property.description || (resolve(property) || {}).description || "").replace(/\s+/g, " ");
      const mark = required.has(name) ? "" : "?";
      return `${inner}${name}${mark}: ${sketch(property, inner, seen)}${text ? "    // " + text : ""}`;
    });
    parts.unshift(`{\n${lines.join("\n")}\n${indent}}`);
  } else if (given.items || given.prefixItems) {
    parts.push(`[${sketch(given.items || true, indent, seen)}]`);
  } else if (!parts.length) {
    const bounds = [given.minimum, given.maximum].some((bound) => bound !== undefined)
      ? ` (${given.minimum ?? ""}..${given.maximum ?? ""})` : "";
    parts.push([given.type || "any"].flat().join(" | ") + bounds);
  }
  return [...new Set(parts)].join(" | ");
};

const parameterRow = (parameter) => {
  const schema = parameter.schema;
  const field = schema.enum
    ? make("select", { name: parameter.name }, make("option", { value: "" }), ...schema.enum.map((word) => make("option", {}, word)))
    : make("input", { name: parameter.name, placeholder: schema.pattern || schema.type });
  field.dataset.place = parameter.in;
  const name = make("td", {}, make("code", {}, parameter.name), parameter.required ? "" : " (optional)");
  return make("tr", {}, name, make("td", {}, parameter.description || ""), make("td", {}, field));
};

const send = async (method, path, form, output) => {
  const query = new URLSearchParams();
  let target = path;
  for (const field of form.querySelectorAll("[data-place]")) {
    if (field.dataset.place === "path") target = target.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value) query.set(field.name, field.value);
  }
  const headers = {};
  const token = document.getElementById("token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = form.querySelector("textarea");
  if (body && body.value) headers["Content-Type"] = body.dataset.type;
  const text = query.size ? `${target}?${query.toString().replaceAll("+", "%20")}` : target;
  output.hidden = false;
  output.textContent = `${method} ${text} …`;
  try {
    const answer = await fetch(text, { method, headers, body: body && body.value ? body.value : undefined });
    const got = await answer.text();
    let shown = got;
    try { shown = JSON.stringify(JSON.parse(got), null, 2); } catch { /* as it came */ }
    output.textContent = `${method} ${text}\n${answer.status} ${answer.statusText}\n\n${shown}`;
  } catch (why) {
    output.textContent = `${method} ${text}\n${why}`;
  }
};

const operation = (path, method, declared) => {
  const form = make("form");
  const verb = method.toUpperCase();
  if (declared.description) form.append(make("p", {}, declared.description));
  const scopes = (declared.security || []).flatMap((one) => Object.values(one).flat());
  form.append(make("p", { class: "quiet" }, scopes.length ? `Scope: ${scopes.join(", ")}` : "Open to anyone who can connect"));
  if (declared.parameters.length) form.append(make("table", {}, ...declared.parameters.map(parameterRow)));
  const bodies = Object.entries((declared.requestBody || {}).content || {});
  for (const [type, { schema }] of bodies) {
    form.append(make("h3", {}, `Body: ${type}${declared.requestBody.required ? "" : " (optional)"}`), make("pre", {}, sketch(schema)));
  }
  if (bodies.length) {
    const body = make("textarea", { "aria-label": "Body", spellcheck: "false" });
    body.dataset.type = bodies[0][0];
    form.append(body);
  }
  const output = make("pre", { hidden: "" });
  form.append(make("p", {}, make("button", { type: "submit" }, "Send")), output, make("h3", {}, "Answers"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(verb, path, form, output);
  });
  for (const [status, answer] of Object.entries(declared.responses)) {
    const row = make("details", {}, make("summary", {}, make("code", {}, status), ` ${answer.description}`));
    for (const [type, { schema }] of Object.entries(answer.content || {})) {
      row.append(make("p", { class: "quiet" }, type), ...(schema ? [make("pre", {}, sketch(schema))] : []));
    }
    form.append(row);
  }
  const summary = make("summary", {}, make("span", { class: `method ${method}` }, verb), make("span", { class: "path" }, path),
    make("span", { class: "quiet" }, `  ${declared.summary}`));
  const whole = make("details", { class: "operation", id: declared.operationId }, summary);
  // What is not looked at is not built.
  whole.addEventListener("toggle", () => { if (whole.open && !form.isConnected) whole.append(form); });
  whole.dataset.words = `${verb} ${path} ${declared.summary}`.toLowerCase();
  return whole;
};

const show = () => {
  const main = document.getElementById("operations");
  const byTag = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, declared] of Object.entries(methods)) {
      const tag = declared.tags[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(path, method, declared));
    }
  }
  for (const [tag, operations] of byTag) main.append(make("section", {}, make("h2", {}, tag), ...operations));
  document.getElementById("about").replaceChildren(
    `${api.info.summary} Version ${api.info.version}. ${api.info.description} `, make("a", { href: "/openapi.json" }, "/openapi.json"));
  document.getElementById("find").addEventListener("input", ({ target }) => {
    const word = target.value.trim().toLowerCase();
    for (const section of main.children) {
      const operations = [...section.querySelectorAll(".operation")];
      operations.forEach((one) => { one.hidden = !one.dataset.words.includes(word); });
      section.hidden = operations.every((one) => one.hidden);
    }
  });
};

fetch("/openapi.json").then((answer) => answer.json()).then((document) => { api = document; show(); })
  .catch((why) => { document.getElementById("about").textContent = `The document could not be read: ${why}`; });
