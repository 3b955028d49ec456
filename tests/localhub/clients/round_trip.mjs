// What the JavaScript client must be able to do with the hub; run by test_matrix.py where @huggingface/hub is installed.
import assert from "node:assert/strict";
import * as hub from "@huggingface/hub";

const hubUrl = process.env.HF_ENDPOINT;
const accessToken = process.env.HF_TOKEN;
const to = { hubUrl, accessToken };
const me = (await hub.whoAmI(to)).name;
const repo = { type: "dataset", name: `${me}/from-node` };
const large = new Uint8Array(1_500_000).map((_, i) => (i * i) % 251);

await hub.createRepo({ ...to, repo, private: true });
assert.ok(await hub.repoExists({ ...to, repo }));
const made = await hub.uploadFiles({
  ...to,
  repo,
  commitTitle: "From Node",
  files: [
    { path: "data/試験.txt", content: new Blob(["答え：a\n"]) },
    { path: "large.bin", content: new Blob([large]) },
  ],
});
assert.match(made.commit.oid, /^[0-9a-f]{40}$/);
const listed = [];
for await (const file of hub.listFiles({ ...to, repo, recursive: true })) listed.push(file.path);
assert.ok(listed.includes("data/試験.txt") && listed.includes("large.bin"), listed.join());
const text = await (await hub.downloadFile({ ...to, repo, path: "data/試験.txt" })).text();
assert.equal(text, "答え：a\n");
const bytes = new Uint8Array(await (await hub.downloadFile({ ...to, repo, path: "large.bin" })).arrayBuffer());
assert.deepEqual(bytes, large);
await hub.deleteFile({ ...to, repo, path: "large.bin" });
const infos = await hub.pathsInfo({ ...to, repo, paths: ["data/試験.txt", "large.bin"] });
assert.deepEqual(infos.map((info) => info.path), ["data/試験.txt"]);
await assert.rejects(hub.datasetInfo({ hubUrl, name: repo.name }));
await hub.deleteRepo({ ...to, repo });
assert.ok(!(await hub.repoExists({ ...to, repo })));
console.log("@huggingface/hub speaks to", hubUrl);
