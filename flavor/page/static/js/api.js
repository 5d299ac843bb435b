// Asks the server for JSON. An error has the server's one line and its hint.

export class Answered extends Error {
  constructor(status, line, hint) {
    super(line);
    this.status = status;
    this.hint = hint ?? "";
  }
}

export async function get(path, query) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== "" && value !== null && value !== undefined) asked.set(name, value);
  }
  const url = `/api/${path}${asked.size ? `?${asked}` : ""}`;
  let answer;
  try {
    answer = await fetch(url, { headers: { accept: "application/json" } });
  } catch {
    throw new Answered(0, "flavor ui does not answer", "the page goes on by itself once it is back");
  }
  let found = null;
  try {
    found = await answer.json();
  } catch {
    // no JSON: a proxy's page
  }
  if (answer.status === 401) location.reload(); // the server asks for the token
  if (!answer.ok) throw new Answered(answer.status, found?.error ?? `the server answers ${answer.status}`, found?.hint);
  return found;
}

export const of = (run, ...rest) => ["runs", run, ...rest].map(encodeURIComponent).join("/");
