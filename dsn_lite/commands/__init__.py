"""The commands of `dsn-lite`: one module each, with `add_parser(subparsers)` and `run(args) -> exit status`."""
