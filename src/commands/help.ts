/** What stands below the options in the help of the program and of each verb: at most 80 columns. */

export const PROGRAM_HELP = `
On an empty directory:
  landfall init            write a configuration, a secret and a first script
  landfall serve           receive pushes
  landfall send github     try it from another terminal

Exit codes: 0 done, 1 it ran and failed, 2 usage or configuration,
3 landfall cannot be reached.`

export const INIT_HELP = `
Writes landfall.toml, .env with a fresh secret and a first script into this
directory, overwrites nothing, and prints what to enter in the forge's webhook
form. It asks on a terminal; elsewhere it takes placeholders, and names them.

  landfall init
  landfall init --repo acme/site --public-url https://hooks.example.com`

export const CHECK_HELP = `
Prints every mistake as file:line:column, with exit code 2; or what the
configuration amounts to, with warnings, and exit code 0.`

export const SERVE_HELP = `
Logs readable lines on a terminal, else JSON. SIGTERM and SIGINT let running
scripts finish for as long as "drain" says; a second one ends them at once.
SIGHUP reads the configuration again: one with a mistake changes nothing.`

export const ONCE_HELP = `
Asks the landfall that serves the data_dir, if one does, and waits for it.
Prints a line a target. Exit code 1 if anything failed. A commit that was
deployed is not deployed again; one that failed is tried again.

  landfall once
  landfall once --url https://github.com/acme/site.git -- make deploy`

export const SEND_HELP = `
Prints the answer. Exit code 0 for any 2xx, 3 if nothing listens, else 1.

  landfall send github
  landfall send github --event ping
  landfall send github --repo acme/site --ref main --commit <40 hex digits>
  landfall send github --ref feature/x --commit <40 zeros>   the branch is gone
  landfall send github --event push payload.json`

export const STATUS_HELP = `
Off a terminal a line a target, separated by tabs: name, state, deployed
commit, wanted commit, running run, queued runs, last run, its state, and of
its hook "silent since <time>" or "never-heard". What is not there is a "-".`

export const RUNS_HELP = `
Off a terminal a line a run, separated by tabs: number, target, commit,
trigger, state, time, milliseconds.

  landfall runs --target site --state failed`

export const DELIVERIES_HELP = `
Off a terminal a line a delivery, separated by tabs: number, time, hook,
event, repository, refs, verdict. Only what a forge has signed is kept.

  landfall deliveries --verdict ignored`

export const SHOW_HELP = `
Off a terminal a line a fact: its name, a tab, its value.

  landfall show 42
  landfall show 42 --json`

export const LOGS_HELP = `
Prints the bytes as the script wrote them. With -f the exit code is 0 however
the run ends: "landfall show RUN" tells how.

  landfall logs 42
  landfall logs 42 -f`
