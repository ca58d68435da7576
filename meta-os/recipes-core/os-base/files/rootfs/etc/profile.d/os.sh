# Completion of the os command, for a shell that has it.
if [ -n "$BASH_VERSION" ] && [ -r /usr/share/bash-completion/completions/os ]; then
    . /usr/share/bash-completion/completions/os
fi
