# bash completion for imgfs: the program itself knows what fits.
_imgfs() {
    # Up to the cursor, quotes and all: bash's own words are cut at the colons of names such as localhost:5000/name.
    mapfile -t COMPREPLY < <(command imgfs __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -o nospace -o nosort -F _imgfs imgfs
