"""Tests of ci/yocto-results: python3 -m unittest discover -s ci"""

import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

_loader = SourceFileLoader("yocto_results", str(Path(__file__).with_name("yocto-results")))
results = module_from_spec(spec_from_loader(_loader.name, _loader))
_loader.exec_module(results)

PARSED = "Parsing of 3122 .bb files complete (3121 cached, 1 parsed). 5204 targets, 312 skipped, 2 masked, 0 errors.\n"
SAVED = "NOTE: PN build list saved to 'pn-buildlist'\nNOTE: Task dependencies saved to 'task-depends.dot'\n"
DOT = r"""digraph depends {
"os-bundle.do_build" [label="os-bundle do_build\n:1.0-r0\n/layers/meta-os/recipes-core/images/os-bundle.bb"]
"os-bundle.do_build" -> "os-image.do_build"
"os-image.do_build" [label="os-image do_build\n:1.0-r0\n/layers/meta-os/recipes-core/images/os-image.bb"]
"os-image.do_build" -> "zlib.do_build"
"zlib.do_build" [label="zlib do_build\n:1.3.1-r0\n/layers/meta/recipes-core/zlib/zlib_1.3.1.bb"]
}
"""
DRY_RUN = """
Build Configuration:
BB_VERSION           = "2.8.1"
NOTE: Running setscene task 12 of 1600 (/layers/meta/recipes-core/zlib/zlib_1.3.1.bb:do_populate_sysroot_setscene)
NOTE: Running task 5122 of 5122 (/layers/meta-os/recipes-core/images/os-bundle.bb:do_build)
"""
SUMMARY = "NOTE: Tasks Summary: Attempted 5122 tasks of which 0 didn't need to be rerun and all succeeded.\n"


class Read(unittest.TestCase):
    def numbers(self, log, dot=""):
        return results.read(log, dot)

    def test_a_graph_counts_its_nodes(self):
        numbers = self.numbers(PARSED + SAVED, DOT)
        self.assertEqual(
            numbers, {"kind": "graph", "parsed": 3122, "masked": 2, "tasks": 3, "warnings": 0, "errors": 0}
        )

    def test_a_graph_that_was_not_saved_is_another_runs(self):
        self.assertEqual(self.numbers(PARSED, DOT)["errors"], 1)

    def test_a_graph_of_other_targets_is_another_runs(self):
        other = DOT.replace('"os-bundle.do_build" [', '"os-rescue.do_build" [')
        self.assertEqual(self.numbers(PARSED + SAVED, other)["errors"], 1)

    def test_a_dry_run_counts_what_it_went_through(self):
        numbers = self.numbers(PARSED + DRY_RUN + SUMMARY)
        self.assertEqual((numbers["kind"], numbers["tasks"], numbers["errors"]), ("dry run", 5122, 0))

    def test_a_dry_run_that_was_ended_failed(self):
        self.assertEqual(self.numbers(PARSED + DRY_RUN)["errors"], 1)

    def test_a_dry_run_with_a_failed_task_failed(self):
        failed = "NOTE: Tasks Summary: Attempted 5122 tasks of which 0 didn't need to be rerun and 1 failed.\n"
        self.assertEqual(self.numbers(PARSED + DRY_RUN + failed)["errors"], 1)

    def test_messages_are_counted_at_the_begin_of_a_line(self):
        log = "WARNING: one\nERROR: Nothing PROVIDES 'x'\nSummary: There was 1 ERROR: message\nERROR: two\n"
        numbers = self.numbers(PARSED + log)
        self.assertEqual((numbers["warnings"], numbers["errors"]), (1, 2))

    def test_an_empty_log_failed(self):
        self.assertEqual(self.numbers("", DOT)["errors"], 1)


class Build(unittest.TestCase):
    def directory(self, **files):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        build = Path(work.name)
        (build / "conf").mkdir()
        for name, text in files.items():
            (build / f"conf/{name}.conf").write_text(text)
        return build

    def test_layers_are_found_by_absolute_path_and_below_the_build_directory(self):
        build = self.directory(bblayers='# /gone\nBBPATH = "${TOPDIR}"\nBBLAYERS ?= " \\\n    ${TOPDIR}/a \\\n    ABS/b"\n')
        for name in ("a", "b", "c"):
            (build / name / "conf").mkdir(parents=True)
            (build / name / "conf/layer.conf").touch()
        conf = build / "conf/bblayers.conf"
        conf.write_text(conf.read_text().replace("ABS", str(build)))
        self.assertEqual(results.layer_directories(build.resolve()), [build.resolve() / name for name in ("a", "b")])

    def test_a_directory_without_bblayers_is_refused(self):
        with self.assertRaises(results.Problem):
            results.layer_directories(self.directory())

    def test_a_hard_assignment_wins_whatever_the_order(self):
        local = 'OS_VARIANT = "standalone"\nOS_VARIANT ?= "production"\nMACHINE ??= "qemuarm64"\n# MACHINE = "x"\n'
        build = self.directory(local=local)
        self.assertEqual(results.setting(build, "OS_VARIANT"), "standalone")
        self.assertEqual(results.setting(build, "MACHINE"), "qemuarm64")
        self.assertIsNone(results.setting(build, "DISTRO"))

    def test_a_build_of_another_machine_is_refused(self):
        build = self.directory(local='MACHINE = "qemuarm64"\n')
        with self.assertRaisesRegex(results.Problem, "raspberrypi4-64"):
            results.record("kas/rpi4.yml", build / "log", build, build / "dot")

    def test_repositories_are_those_of_all_included_files(self):
        found = results.repositories("kas/odroid-c2.yml")
        self.assertLessEqual({"os", "poky", "meta-rauc", "meta-odroid"}, found)
        self.assertNotIn("meta-raspberrypi", found)
        for name in results.matrix():
            self.assertIn("meta-openembedded", results.repositories(name.split(":")[0]))

    def test_every_listed_build_has_its_files_and_its_variant(self):
        self.assertIn("kas/wrynose/rpi4.yml:kas/opt/standalone.yml", results.matrix())
        asked = results.asked("kas/wrynose/rpi4.yml:kas/opt/standalone.yml")
        self.assertEqual(asked, {"MACHINE": "raspberrypi4-64", "OS_VARIANT": "standalone"})
        for name in results.matrix():
            results.asked(name)
        with self.assertRaises(results.Problem):
            results.asked("kas/include/base.yml")


def entry(**changes):
    numbers = {"kind": "graph", "parsed": 3122, "masked": 0, "tasks": 5122, "warnings": 0, "errors": 0}
    return {"date": "2026-11-28", **numbers, "commit": "0123456789ab", "layers": {"poky": "1" * 40}, **changes}


class Table(unittest.TestCase):
    BUILDS = ("kas/a.yml", "kas/b.yml", "kas/wrynose/a.yml")

    def table(self, records, reasons=(("wrynose", "machine-b", "no branch"),)):
        reasons = [{"release": release, "machines": [machine], "reason": text} for release, machine, text in reasons]
        locks = {"scarthgap": {"poky": "1" * 40}, "wrynose": {}}
        return results.Table({"a": "machine-a", "b": "machine-b"}, self.BUILDS, records, locks, reasons)

    def test_a_row_for_each_machine(self):
        records = {"kas/a.yml": entry(), "kas/a.yml:kas/opt/development.yml": entry(kind="dry run", tasks=9, warnings=2)}
        table = self.table(records)
        self.assertEqual(list(table.wrong()), [])
        lines = table.markdown().splitlines()
        development = "development 9 (dry run, 2 warnings)"
        self.assertEqual(lines[2], f"| `machine-a` | production 5,122, {development}, standalone not run yet | not run yet |")
        self.assertEqual(lines[3], "| `machine-b` | not run yet | **no**, reason 1 |")
        self.assertEqual(lines[7], "1. no branch")
        self.assertEqual(lines[-1], "- scarthgap, 2026-11-28: poky `111111111111`; this repository `0123456789ab`")

    def test_red_needs_a_reason(self):
        records = {"kas/a.yml": entry(errors=2, tasks=0)}
        wrong = list(self.table(records, ()).wrong())
        self.assertEqual([line.split()[0] for line in wrong], ["machine-a", "machine-b"])
        reasons = (("scarthgap", "machine-a", "upstream"), ("wrynose", "machine-b", "no branch"))
        self.assertEqual(list(self.table(records, reasons).wrong()), [])
        cell = self.table(records, reasons).cell("scarthgap", "a")
        self.assertEqual(cell, "production **fails** (2 errors), development not run yet, standalone not run yet, reason 1")

    def test_a_reason_for_what_works_is_wrong(self):
        reasons = (("wrynose", "machine-b", "no branch"), ("scarthgap", "machine-a", "old"), ("wrynose", "gone", "x"))
        self.assertEqual(len(list(self.table({"kas/a.yml": entry()}, reasons).wrong())), 2)

    def test_a_record_of_other_commits_says_nothing(self):
        for commit in ("2" * 40, "1" * 40 + "+"):
            self.assertEqual(self.table({"kas/a.yml": entry(layers={"poky": commit})}).cell("scarthgap", "a"), "not run yet")

    def test_lock_files_are_read(self):
        for release, core in (("scarthgap", "poky"), ("wrynose", "openembedded-core")):
            self.assertRegex(results.locked(release)[core], "^[0-9a-f]{40}$")


if __name__ == "__main__":
    unittest.main()
