#!/usr/bin/env python3
"""Relevance of Windrow on Cranfield and NFCorpus: nDCG@10 over judged queries.

    windrow up &
    WINDROW_TEST_DATA=... python3 benches/relevance.py [--url http://127.0.0.1:7700]

One text field (title, space, body), analyzer `english`; a query's words are
joined by OR, each quoted. Linear gain, as trec_eval computes it.
"""

import argparse, json, math, os, re, sys, urllib.request

COLLECTIONS = {"cranfield": ("cranfield.qrels.tsv", 0.352), "nfcorpus-test": ("nfcorpus-test.qrels.tsv", 0.314)}


def call(method, url, body=None):
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        if method == "DELETE" and error.code == 404:
            return None
        sys.exit(f"{method} {url}: {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"no Windrow answers at {url}: start one with `windrow up` ({error.reason})")


def ndcg(ranked, grades, depth=10):
    gain = lambda values: sum(grade / math.log2(rank + 2) for rank, grade in enumerate(values[:depth]))
    best = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(doc, 0) for doc in ranked]) / best if best else 0.0


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--url", default="http://127.0.0.1:7700")
    url = arguments.parse_args().url
    data = os.environ.get("WINDROW_TEST_DATA") or sys.exit("set WINDROW_TEST_DATA to the folder with cranfield.ndjson")
    fine = True
    for name, (qrels, wanted) in COLLECTIONS.items():
        index = f"{url}/v1/indexes/relevance-{name}"
        call("DELETE", index)
        schema = {"fields": {"text": {"type": "text", "analyzer": "english"}}}
        call("PUT", index, {"shards": 4, "schema": schema})
        lines = []
        for line in open(os.path.join(data, f"{name}.ndjson"), encoding="utf-8"):
            document = json.loads(line)
            text = f"{document.get('title', '')} {document.get('body', '')}"
            lines.append(json.dumps({"id": document["id"], "text": text}))
        written = call("POST", f"{index}/documents?refresh=wait", "\n".join(lines).encode())
        assert written["accepted"] == len(lines), written
        grades = {}
        for line in open(os.path.join(data, qrels), encoding="utf-8"):
            query, document, grade = line.split("\t")
            if int(grade) > 0:
                grades.setdefault(query, {})[document] = int(grade)
        scores = []
        for line in open(os.path.join(data, f"{name}.queries.tsv"), encoding="utf-8"):
            query, text = line.rstrip("\n").split("\t", 1)
            if query not in grades:
                continue
            words = re.findall(r"\w+", text)
            request = {"query": " OR ".join(f'"{word}"' for word in words), "limit": 10, "fields": []}
            hits = call("POST", f"{index}/search", request)["hits"]
            scores.append(ndcg([hit["id"] for hit in hits], grades[query]))
        mean = sum(scores) / len(scores)
        fine &= mean >= wanted
        print(f"{name}: nDCG@10 {mean:.4f} over {len(scores)} judged queries (at least {wanted} wanted)")
        call("DELETE", index)
    sys.exit(0 if fine else 1)


main()
