"""``spec-repro`` of a checkout whose paper and laptop profiles are small: a whole profile is one command, as it is."""

if __name__ == "__main__":  # the processes of its runs read this file, too, and need none of it
    import dataclasses
    import sys

    from rehearsal import small

    from spec_repro.headless.cli import main
    from spec_repro.headless.experiments import load_experiments

    experiments = load_experiments()
    for name, item in experiments.items():
        changes = {profile: small(name, profile) for profile in item.cards if profile != "mini"}
        experiments[name] = dataclasses.replace(item, changes=changes)
    sys.exit(main())
