#compdef imgfs
# zsh completion for imgfs: the program itself knows what fits.
_imgfs() {
    local line value
    local -a lines whole whole_text part part_text
    lines=("${(@f)$(command imgfs __complete zsh "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for line in $lines; do
        value=${line%%$'\t'*}
        # More may follow right behind a directory, an option that wants a value, a registry's name.
        if [[ $value == *[/:=] ]]; then
            part+=("$value")
            part_text+=("${line/$'\t'/  -- }")
        else
            whole+=("$value")
            whole_text+=("${line/$'\t'/  -- }")
        fi
    done
    [[ -n $part ]] && compadd -V parts -S '' -l -d part_text -a part
    [[ -n $whole ]] && compadd -V values -l -d whole_text -a whole
}
if [[ $funcstack[1] == _imgfs ]]; then
    _imgfs "$@"
else
    compdef _imgfs imgfs
fi
