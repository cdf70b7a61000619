// The API's description for people, made of openapi.json, so that it is said in one place.

const here = new URL("./", location.href).href;

function tag(name, text = "", ...children) {
  const node = Object.assign(document.createElement(name), { textContent: text });
  node.append(...children);
  return node;
}

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.additionalProperties) return `object of ${kind(schema.additionalProperties) || "anything"}`;
  return schema.format === "binary" ? "file" : (schema.type ?? "");
}

function table(title, heads, rows) {
  const head = tag("tr", "", ...heads.map((text) => Object.assign(tag("th", text), { scope: "col" })));
  const body = rows.map(([first, ...others]) => tag("tr", "", tag("td", "", tag("code", first)), ...others.map((text) => tag("td", text))));
  const scroll = tag("div", "", tag("table", "", tag("thead", "", head), tag("tbody", "", ...body)));
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  return scroll;
}

function route(path, method, said) {
  const nodes = [tag("h2", `${method.toUpperCase()} ${path}`), tag("p", said.description)];
  const taken = (said.parameters ?? []).map(({ name, schema, description }) => [
    name,
    kind(schema),
    [description ?? schema.description, schema.default === undefined || schema.default === null ? "" : `default: ${schema.default}`]
      .filter(Boolean)
      .join("; "),
  ]);
  if (taken.length) nodes.push(tag("h3", "Parameters, in the address or as fields of the form"), table(`Parameters of ${path}`, ["name", "kind", "meaning"], taken));
  const kinds = Object.keys(said.requestBody?.content ?? {});
  if (kinds.length) nodes.push(tag("p", `Body: ${kinds.join(" or ")}`));
  const answers = Object.entries(said.responses).map(([status, { description, content }]) => [
    status,
    kind(content?.["application/json"]?.schema),
    description,
  ]);
  nodes.push(tag("h3", "Answers"), table(`Answers of ${path}`, ["status", "kind", "meaning"], answers));
  return nodes;
}

function part(name, { description, properties = {} }) {
  const rows = Object.entries(properties).map(([key, schema]) => [key, kind(schema), schema.description ?? ""]);
  return [tag("h3", name), tag("p", description ?? ""), table(name, ["name", "kind", "meaning"], rows)];
}

document.getElementById("shell").textContent = [
  `curl --data-binary @image.png '${here}v1/score?category=bolt'`,
  `curl -F image=@first.png -F image=@second.png -F maps=true ${here}v1/score`,
  `curl ${here}v1/model`,
  `curl -H "Authorization: Bearer $RAYDIFF_SERVE_TOKEN" --data-binary @image.png ${here}v1/score`,
].join("\n");

const api = await (await fetch("openapi.json")).json();
document.getElementById("model").textContent = `version ${api.info.version}`;
const places = document.getElementById("routes");
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, said] of Object.entries(methods)) places.append(...route(path, method, said));
}
places.append(tag("h2", "What is in the answers"));
for (const [name, schema] of Object.entries(api.components.schemas)) {
  if (schema.properties && !name.includes("Validation")) places.append(...part(name, schema));
}
