#!/usr/bin/env python3
"""Turns the measurements of scripts/bench into a table and one JSON file.

  bench/table.py RESULTS-DIRECTORY OUT.json

Each row: what, our figure, the yardstick's, their ratio, the goal and whether it holds. Medians over the rounds.
"""
import glob
import json
import os
import platform
import statistics
import sys


def load(pattern):
    found = []
    for path in sorted(glob.glob(pattern)):
        with open(path, encoding="utf-8") as source:
            found.append(json.loads(source.read()))
    return found


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as source:
        return [json.loads(line) for line in source if line.startswith("{")]


def median(values):
    return statistics.median(values) if values else None


def quantile(values, fraction):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else None


class Table:
    def __init__(self):
        self.rows = []

    def add(self, what, unit, ours, reference, goal, good, against=""):
        """`good` takes (ours, ratio) and says whether the goal holds."""
        if ours is None:
            return
        ratio = ours / reference if reference else None
        self.rows.append({"what": what, "unit": unit, "ours": ours, "reference": reference, "against": against,
                          "ratio": ratio, "goal": goal, "holds": bool(good(ours, ratio))})

    def print(self):
        number = lambda value: "-" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
        head = f"{'what':74} {'ours':>11} {'reference':>11} {'ratio':>6}  {'goal':24}"
        print("\n" + head + "\n" + "-" * len(head))
        for row in self.rows:
            print(f"{row['what']:74} {number(row['ours']):>11} {number(row['reference']):>11} "
                  f"{number(row['ratio']):>6}  {row['goal']:24}{'' if row['holds'] else '  MISSED'}")


def wakeups(table, results):
    for run in load(f"{results}/wakeups.json"):
        table.add("machine: two processes wake each other, one processor, us", "us", run["same_cpu_us"], None, "(shown)",
                  lambda _, r: True)
        table.add("machine: the same across two processors, us", "us", run["two_cpus_us"], None, "(shown)", lambda _, r: True)


def network(table, results, kind, title, cpu_goal, with_rate):
    ours, theirs = load(f"{results}/{kind}.ours.*.json"), load(f"{results}/{kind}.nginx.*.json")
    if not ours or not theirs:
        return
    pick = lambda runs, *keys: median([run[keys[0]] if len(keys) == 1 else run[keys[0]][keys[1]] for run in runs])
    table.add(f"{title}: server CPU a request, us", "us", pick(ours, "cpu_us_per_request"),
              pick(theirs, "cpu_us_per_request"), f"<= {cpu_goal} x nginx", lambda _, r: r <= cpu_goal, "nginx")
    if with_rate:
        table.add(f"{title}: requests a second", "1/s", pick(ours, "per_second"), pick(theirs, "per_second"),
                  ">= 1.0 x nginx", lambda _, r: r >= 1.0, "nginx")
        table.add(f"{title}: p99, us", "us", pick(ours, "latency", "p99_us"), pick(theirs, "latency", "p99_us"),
                  "<= 1.0 x nginx", lambda _, r: r <= 1.0, "nginx")
    else:
        table.add(f"{title}: a second", "1/s", pick(ours, "per_second"), pick(theirs, "per_second"), "(shown)",
                  lambda _, r: True, "nginx")
    errors = sum(run["errors"] + run["wrong_answers"] for run in ours)
    table.add(f"{title}: errors", "", errors, None, "0", lambda o, _: o == 0)


def rotations(table, results):
    ours = median([run["per_second"] for run in load(f"{results}/rotations.ours.*.json")])
    sqlite = median([run["commits_per_second"] for run in load(f"{results}/rotations.sqlite.*.json")])
    table.add("committed rotations a second, 8 mTLS writers", "1/s", ours, sqlite, ">= 0.5 x bare SQLite",
              lambda _, r: r >= 0.5, "sqlite")


def latency(table, results):
    cases = [("alone", "rotation seen in the container", 10, 50), ("few", "the same, 1 000 waiting, 10 hold it", 10, 50),
             ("all", "the same, all 1 000 hold it", None, 250)]
    for label, title, p50_goal, p99_goal in cases:
        rotated = lines(f"{results}/latency.{label}.rotations")
        seen = {}
        for event in lines(f"{results}/latency.{label}.watch"):
            if "sha256" in event:
                seen.setdefault(event["sha256"], event["read_ns"])
        acked = [line for line in rotated if "acked_ns" in line]
        if not acked:
            continue
        waits = [max(0, seen[line["sha256"]] - line["acked_ns"]) / 1e6 for line in acked if line["sha256"] in seen]
        table.add(f"{title}: events missing", "", len(acked) - len(waits), None, "0", lambda o, _: o == 0)
        if p50_goal:
            table.add(f"{title}: p50, ms", "ms", quantile(waits, 0.5), None, f"<= {p50_goal} ms",
                      lambda o, _, g=p50_goal: o <= g)
        table.add(f"{title}: p99, ms", "ms", quantile(waits, 0.99), None, f"<= {p99_goal} ms",
                  lambda o, _, g=p99_goal: o <= g)
        summary = next((line["summary"] for line in rotated if "summary" in line), None)
        if summary and summary["holders"]:
            table.add(f"{title}: feed answer at the first waiter, p99 ms", "ms", summary["first"]["p99_us"] / 1000, None,
                      "<= 1 ms", lambda o, _: o <= 1)
            table.add(f"{title}: feed answer at every holder, p99 ms", "ms", summary["holders_latency"]["p99_us"] / 1000,
                      None, "(shown)", lambda o, _: True)
            table.add(f"{title}: waiters told wrongly or not", "",
                      summary["others"] + summary["expected"] - summary["told"] + summary["errors"], None, "0",
                      lambda o, _: o == 0)


def mount(table, results):
    one, two = load(f"{results}/mount.ours.1.json"), load(f"{results}/mount.ours.2.json")
    tmpfs, stopped = load(f"{results}/mount.tmpfs.1.json"), load(f"{results}/mount.stopped.1.json")
    if not one:
        return
    one, two, tmpfs, stopped = one[0], two[0], tmpfs[0], stopped[0]
    table.add("open+read+close in the mount, audited: p50, us", "us", one["open_read_close"]["p50_us"],
              tmpfs["open_read_close"]["p50_us"], "<= 40 us", lambda o, _: o <= 40, "tmpfs")
    table.add("the same to end of file: p50, us", "us", one["read_to_end"]["p50_us"], tmpfs["read_to_end"]["p50_us"],
              "<= 60 us", lambda o, _: o <= 60, "tmpfs")
    table.add("stat: p50, us", "us", one["stat"]["p50_us"], tmpfs["stat"]["p50_us"], "<= 3 us", lambda o, _: o <= 3, "tmpfs")
    table.add("reads a second, one reader", "1/s", one["open_read_close"]["per_second"], None, ">= 25 000",
              lambda o, _: o >= 25000)
    table.add("reads a second, two readers", "1/s", two["open_read_close"]["per_second"], None, ">= 40 000",
              lambda o, _: o >= 40000)
    table.add("reads a second with the server stopped", "1/s", stopped["open_read_close"]["per_second"],
              one["open_read_close"]["per_second"], "+-10 % of running", lambda _, r: 0.9 <= r, "running")


def server_memory(table, title, run):
    limit = 20 * 1024 + 32 * run["server_connections"] + run["server_secrets"] / 2
    table.add(f"server memory, {title}, KiB", "KiB", run["server_rss_kib"], limit, "20 MiB + 32 KiB/conn + ...",
              lambda o, r: r <= 1, "the formula")


def memory(table, results):
    for run in load(f"{results}/memory.waiting.json"):
        server_memory(table, f"{run['server_connections']:,} connections at work", run)
    found = load(f"{results}/memory.json")
    if not found:
        return
    run = found[0]
    server_memory(table, f"at rest, {run['server_connections']} connections", run)
    table.add("latchkey-fs private memory with 1 000 secrets, KiB", "KiB", run["fs_private_kib"],
              10 * 1024 + run["fs_content_kib"], "10 MiB + content", lambda o, r: r <= 1, "the formula")


def cold_start(table, results):
    found = load(f"{results}/coldstart.[0-9]*.json")
    if not found:
        return
    title = f"{found[0]['secrets']:,} secrets, {found[0]['secrets'] * 10:,} grants"
    table.add(f"cold start to ready, {title}, s", "s", median([run["ready_ms"] for run in found]) / 1000, None, "<= 3 s",
              lambda o, _: o <= 3)
    table.add(f"server memory after it, {title}, KiB", "KiB", found[-1]["rss_kib"],
              20 * 1024 + found[0]["secrets"] / 2, "20 MiB + 0.5 KiB/secret", lambda o, r: r <= 1, "the formula")
    decide = load(f"{results}/coldstart.decide.json")
    small = load(f"{results}/reads.ours.*.json")
    if decide and small:
        table.add("CPU of one read in the large store, us", "us", decide[0]["cpu_us_per_request"],
                  median([run["cpu_us_per_request"] for run in small]), "independent of size (1.1)",
                  lambda _, r: r <= 1.1, "small store")


def main(arguments):
    results, out = arguments
    table = Table()
    wakeups(table, results)
    network(table, results, "reads", "GET /secret, 1 KiB", 0.9, True)
    network(table, results, "handshakes", "handshake + request", 0.75, False)
    rotations(table, results)
    latency(table, results)
    mount(table, results)
    memory(table, results)
    cold_start(table, results)
    table.print()
    with open("/proc/cpuinfo", encoding="utf-8") as source:
        cpu = next((line.split(":", 1)[1].strip() for line in source if line.startswith("model name")), "unknown")
    machine = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release()}
    with open(out, "w", encoding="utf-8") as target:
        json.dump({"machine": machine, "rows": table.rows}, target, indent=1)
    missed = sum(not row["holds"] for row in table.rows)
    print(f"\n{len(table.rows)} rows, {missed} missed; {cpu}, {os.cpu_count()} cores; written to {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
