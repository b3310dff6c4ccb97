#!/bin/sh
# The work folder on a device: made, listed and cleaned. For dash, mksh with toybox, and busybox.
#
#   edgekd_folder.sh prepare WORK             make it, or refuse one that others can write to; mend what a death left
#   edgekd_folder.sh free WORK OWNER          end the process that holds the lock, if it does so for this owner
#   edgekd_folder.sh stored WORK              print "SHA256 SIZE models/NAME" or "... bin/NAME", hashed here and now
#   edgekd_folder.sh clean WORK KEEP_BYTES    drop the oldest files until the rest fits; 0 drops all but what was installed
#
# Also as text: sh -c "$(cat edgekd_folder.sh)" edgekd_folder prepare WORK. A refusal is one line on stderr and code 1.
# It follows no link and touches nothing outside WORK. It uses no awk, no here-document and no number above 2^31:
# Android 8 has no awk, and mksh counts in 32 bits.

set -u
LC_ALL=C
export LC_ALL
umask 077

refuse() { # REASON
    printf '%s\n' "cannot use work folder $work: $1" >&2
    exit 1
}

private() { # FOLDER: is it a real folder of this user's, that nobody else can write to?
    set -f
    # The words of ls are wanted: mode, links, owner.
    # shellcheck disable=SC2046
    set -- $(ls -ldn "$1" 2>/dev/null)
    set +f
    case ${1-} in
        d????-??-*) [ "${3-}" = "$(id -u)" ] ;;
        *) false ;;
    esac
}

enter() { # go into WORK, or refuse it
    private "$work" || refuse "not a folder that only this user can write to"
    cd "$work" || refuse "cannot be entered"
    for folder in models bin; do
        [ ! -L $folder ] || refuse "$folder is a link"
    done
    [ ! -L lock ] || refuse "lock is a link"
}

unlocked() { # COMMAND...: run it holding the lock, or not at all while a session holds that
    ( : >>lock ) 2>/dev/null || return 0
    { flock -n 9 2>/dev/null && [ /proc/self/fd/9 -ef lock ] && "$@" 9>&-; } 9>>lock
    return 0
}

is_kept() { # does the process that switched the mode on, where the marker names it, still live?
    line=''
    { read -r line <fixed-performance; } 2>/dev/null
    # Since a restart its number may be another process's.
    case $line in '' | *[!0-9]*) false ;; *) grep -q fixed-performance "/proc/$line/cmdline" 2>/dev/null ;; esac
}

mend() { # put back what a session that died has left
    if [ -f fixed-performance ] && ! is_kept &&
        cmd power set-fixed-performance-mode-enabled false </dev/null >/dev/null 2>&1; then
        rm -f fixed-performance
    fi
    for path in .*.part models/.*.part bin/.*.part; do
        # over adb, files that arrive together lie in a folder of that name
        if [ -e "$path" ] || [ -L "$path" ]; then rm -rf "$path"; fi
    done
}

is_ours() { # PATH: a plain file of models/ or bin/ with a name that we give
    [ -f "$1" ] && [ ! -L "$1" ] || return 1
    name=${1#*/}
    case $1 in
        models/*.tflite | models/*.onnx | models/*.bin) digest=${name%.*} digits=64 ;;
        bin/*-?*) digest=${name%%-*} digits=16 ;;
        *) return 1 ;;
    esac
    case $digest in *[!0-9a-f]*) return 1 ;; esac
    case $name in *[!A-Za-z0-9._+-]*) return 1 ;; esac
    [ ${#digest} -eq $digits ]
}

prune() { # drop what bears no name of ours; what is left has names without spaces and the like
    for path in models/* bin/*; do
        is_ours "$path" || rm -rf "$path"
    done
}

bears() { # SHA256 PATH: does the path carry that hash?
    digest=${2#*/}
    case $2 in
        models/*) [ "${digest%.*}" = "$1" ] ;;
        *) case $1 in "${digest%%-*}"*) true ;; *) false ;; esac ;;
    esac
}

both() { # hashes and sizes of all files: two lines a file, beside each other, "VALUE PATH"
    # shellcheck disable=SC2016
    find models bin -type f ! -path '*/.*' -exec sh -c 'sha256sum "$@"; stat -c "%s %n" "$@"' sh {} + |
        sed 's/  */ /' | sort -k 2
}

stored() {
    prune
    value='' size='' sum='' path=''
    for word in $(both); do
        if [ -z "$value" ]; then
            value=$word
            continue
        fi
        [ "$word" = "$path" ] || { path=$word size='' sum=''; }
        if [ ${#value} -eq 64 ]; then sum=$value; else size=$value; fi
        value=''
        [ -n "$sum" ] && [ -n "$size" ] || continue
        if bears "$sum" "$path"; then echo "$sum $size $path"; else rm -f "$path"; fi
    done
}

holds() { # PID: does it have the lock open?
    for file in "/proc/$1/fd"/*; do
        [ ! "$file" -ef lock ] || return 0
    done
    return 1
}

free() { # OWNER: a server whose link broke may not know yet
    line=''
    { read -r line <lock; } 2>/dev/null
    case $line in
        *"\"owner\":\"$1\""* | *"\"owner\": \"$1\""*) ;;
        *) return 0 ;;
    esac
    holder=${line#*\"pid\":}
    holder=${holder# }
    holder=${holder%%[!0-9]*}
    if [ -z "$holder" ] || ! holds "$holder"; then return 0; fi
    # Without "--", which dash and busybox do not take before a group.
    kill -9 "-$holder" 2>/dev/null || kill -9 "$holder" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        ! flock -n 8 8>>lock 2>/dev/null || return 0
        sleep 0.1 2>/dev/null || sleep 1
    done
    refuse "process $holder holds it and does not end"
}

add() { # BYTES: to kept_k thousands and kept_b, because 32 bits end at 2 GB
    high=0 low=$1
    if [ ${#1} -gt 3 ]; then
        high=${1%???}
        low=$((1${1#"$high"} - 1000))
    fi
    kept_k=$((kept_k + high + (kept_b + low) / 1000))
    kept_b=$(((kept_b + low) % 1000))
}

surplus() { # KEEP_BYTES: print the paths beyond it, the newest being kept
    kept_k=0 kept_b=0
    add "$1"
    most_k=$kept_k most_b=$kept_b kept_k=0 kept_b=0 bytes='' time=''
    for word in $(find models bin -type f ! -path '*/.*' -exec stat -c '%Y %s %n' {} + | sort -rn); do
        if [ -z "$time" ]; then
            time=$word
        elif [ -z "$bytes" ]; then
            bytes=$word
        else
            add "$bytes"
            if [ $kept_k -gt "$most_k" ] || { [ $kept_k -eq "$most_k" ] && [ $kept_b -gt "$most_b" ]; }; then
                echo "$word"
            fi
            time='' bytes=''
        fi
    done
}

drop_all() { # but what was installed, the lock while it is ours, and the marker of a mode that could not be put back
    for path in ./* ./.*; do
        case $path in
            ./. | ./.. | ./site | ./site-onnxruntime | ./lock | ./fixed-performance) ;;
            *) rm -rf "$path" ;;
        esac
    done
    rm -f lock
    rmdir "$work" 2>/dev/null
}

clean() { # KEEP_BYTES
    mend
    if [ "$1" = 0 ]; then
        drop_all
    else
        prune
        surplus "$1" | xargs -r rm -f
    fi
}

action=${1-} work=${2-} last=${3-}
case $work in
    *'
'*) work='' && refuse "its name has several lines" ;;
    */) refuse "it ends in a slash" ;;
    /*) ;;
    *) refuse "not an absolute path" ;;
esac
case ${work##*/} in
    edgekd*) ;;
    *) refuse "its name does not begin with edgekd" ;;
esac

case $action in
    prepare)
        if [ ! -L "$work" ] && [ ! -e "$work" ]; then
            mkdir -p "$work" 2>/dev/null || refuse "cannot be made"
        fi
        enter
        mkdir -p models bin 2>/dev/null || refuse "cannot be written to"
        unlocked mend
        ;;
    stored)
        enter
        mkdir -p models bin
        stored
        ;;
    free)
        [ -n "$last" ] || refuse "free needs an owner"
        enter
        free "$last"
        ;;
    clean)
        case $last in '' | *[!0-9]* | 0?* | ?????????????*) refuse "KEEP_BYTES is no number of at most 12 digits" ;; esac
        [ -e "$work" ] || exit 0
        enter
        mkdir -p models bin
        unlocked clean "$last"
        ;;
    *)
        refuse "the action must be prepare, stored, free or clean"
        ;;
esac
