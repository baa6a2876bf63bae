# Reads from the process that started it: `+PID` a child to kill, `-PID` it is gone, `dPATH` a
# folder to remove. The end of the input is the end of that process, however it came about.
trap '' INT TERM HUP QUIT
children=' '
folders=
while IFS= read -r line; do
  value=${line#?}
  case $line in
    +*) children="$children$value " ;;
    -*) children="${children%%" $value "*} ${children#*" $value "}" ;;
    d*) folders="$folders$value
" ;;
  esac
done
for child in $children; do kill -s KILL -- "-$child"; done
printf %s "$folders" | while IFS= read -r folder; do
  case $folder in */understudy-test-*) rm -rf -- "$folder" ;; esac
done
