"""Print the result of every check."""

from dit_nb.teach.graders.framework.core import _all_checks

from . import RIGHT, WRONG


def main():
    checks = _all_checks()
    for name, check in checks.items():
        print(f"\n{name}: {len(RIGHT[name])} right, {len(WRONG[name])} wrong")
        for fn in RIGHT[name]:
            print(f"  {'✓' if check(fn) else '✗ REJECTED'} {fn.__name__}")
        for fn, words in WRONG[name]:
            report = check(fn)
            mark = "✗" if not report and words in report.reason else "ACCEPTED" if report else "OTHER WORDS"
            print(f"  {mark} {fn.__name__}: {report.reason}")
    count = [len(checks), *(sum(map(len, answers.values())) for answers in (WRONG, RIGHT))]
    print("\n{} exercises, {} wrong answers, {} right answers".format(*count))


if __name__ == "__main__":
    main()
