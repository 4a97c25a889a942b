# fish completion for imgfs: the program itself knows what fits.
complete --command imgfs --no-files --keep-order --arguments '(command imgfs __complete fish (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor) 2>/dev/null)'
