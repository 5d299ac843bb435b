// A browser that is logged in already gives no cookie to a link on another web site; asked from here, it does.
const form = new URLSearchParams(location.search);
const isForm = location.pathname === "/login";
const next = isForm ? form.get("next") ?? "/" : location.pathname + location.search;
document.getElementById("next").value = next;
document.getElementById("wrong").hidden = !form.has("wrong");
if (!form.has("wrong")) {
  const answer = await fetch("/api/runs", { method: "HEAD" });
  if (answer.ok) location.replace(next.startsWith("/") && !next.startsWith("//") ? next : "/");
}
