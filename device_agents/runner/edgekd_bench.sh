#!/bin/sh
# Run Google's benchmark_model on a device that has a shell and little else: dash, mksh with toybox, busybox.
#
#   edgekd_bench.sh serve WORK OWNER BINARY       answer the lines of standard input until it closes
#
#   lock                                          hello PID NOW SHA256 ONLINE ALLOWED | busy NOW LOCK | fatal REASON
#   check SHA256...                               h SHA256 PATH for each model that is there, hashed now; z
#   run SHA256 MASK THREADS RUNS MIN_S MAX_S WARMUP_RUNS WARMUP_S PROFILE
#                                                 o TEXT for each line that the binary wrote; x CODE when it has ended
#   outputs SHA256 THREADS BLOB SHAPE:COUNT...    the same, with b BASE64 lines of all outputs in between
#   state                                         t MILLI_C, p PI_THROTTLED, c COUNT, f CPU MAX FULL lines; z
#   kill                                          ends what runs now; its x line follows
#   alive                                         nothing; a host that says nothing for two minutes is taken to be gone
#
# The shell always waits in `read`, so that the end of the input ends everything at once. A request that runs the binary
# leaves that to a worker in the background. The lock is the kernel's, on WORK/lock, and ends with this process.
# It judges nothing: engines/benchmark_model.py on the host reads what it says.

set -u
set -f # no word becomes a list of files unless we ask for it
LC_ALL=C
export LC_ALL
umask 077
pid=$$ locked='' worker='' beat=0
silent_exit=75 # HOST_SILENT_EXIT of protocol.py

fatal() { # REASON
    printf 'fatal %s\n' "$1"
    end 1
}

first_line() { # FILE: into $line; empty when it cannot be read
    line=''
    { read -r line <"$1"; } 2>/dev/null
    [ -n "$line" ]
}

is_hash() { case $1 in *[!0-9a-f]*) false ;; *) [ ${#1} -eq 64 ] ;; esac; }
is_hex() { case $1 in '' | *[!0-9a-f]*) false ;; esac; }
is_count() { case $1 in '' | *[!0-9]* | ??????????*) false ;; esac; } # below 10^9: mksh has 32 bits
is_decimal() { case $1 in '' | *[!0-9.]* | *.*.*) false ;; esac; }
is_shape() { case $1 in '' | *[!0-9,]*) false ;; esac; }

# --- the lock ---------------------------------------------------------------------------------------------------------

take_lock() { # never waits: the host asks again as long as it wants to
    # The session that we wait for may have removed the folder; the host fills it again once we have the lock.
    [ -d "$work" ] || mkdir "$work" 2>/dev/null
    cd "$work" 2>/dev/null || fatal "cannot enter $work"
    if [ -L lock ] || ! ( : >>lock ) 2>/dev/null; then fatal "cannot write $work/lock"; fi
    command -v flock >/dev/null || fatal "this device has no flock command"
    exec 9>>lock
    # 8 and not 9: mksh keeps what exec opened from its commands.
    if ! flock -n 8 8>&9 2>/dev/null; then
        exec 9>&-
        first_line lock
        printf 'busy %s %s\n' "$(date +%s)" "$line"
    elif [ /proc/self/fd/9 -ef lock ]; then
        locked=1
        echo "{\"pid\":$pid,\"since\":$(date +%s),\"owner\":\"$owner\"}" >lock
        echo $beat >.alive.part
        hello
        guard </dev/null >/dev/null 2>&1 9>&- &
    else
        exec 9>&-
        take_lock # a cleaner removed the file between our two steps
    fi
}

hello() {
    first_line /sys/devices/system/cpu/online
    online=${line:--}
    allowed=-
    while read -r key value; do
        [ "$key" != Cpus_allowed_list: ] || allowed=$value
    done </proc/self/status
    echo "hello $pid $(date +%s) ${digest%% *} $online $allowed"
}

guard() { # a link that was cut without a word must not keep the lock for the hours that TCP waits
    seen=''
    while sleep 60; do
        kill -0 $pid 2>/dev/null || exit 0
        first_line .alive.part
        if [ "$line" = "$seen" ]; then
            kill -USR1 $pid
            sleep 5
            kill -9 $pid
            exit 0
        fi
        seen=$line
    done
}

# --- what runs --------------------------------------------------------------------------------------------------------

launch() { # WANTED COMMAND...: run it in the background and report
    stop
    [ -x "$binary" ] || chmod 700 "$binary" 2>/dev/null # not every transport keeps a file's mode
    (work_on "$@") </dev/null &
    worker=$!
}

stop() { # end the worker and what it runs; it says its x line first
    [ -n "$worker" ] || return 0
    kill -TERM "$worker" 2>/dev/null
    wait "$worker" 2>/dev/null
    [ $? -ne 143 ] || echo 'x 137' # it had not begun
    worker=''
}

work_on() { # WANTED COMMAND...
    wanted=$1 ended='' child='' code=0
    shift
    trap 'ended=1; [ -z "$child" ] || kill -9 "$child" 2>/dev/null' TERM
    ulimit -f 16384 # blocks, some MiB: a binary that writes for ever shall not fill the device
    "$@" >.output.part 2>&1 9>&- &
    child=$!
    [ -z "$ended" ] || kill -9 "$child" 2>/dev/null
    wait "$child" || code=$?
    while [ -n "$ended" ] && kill -0 "$child" 2>/dev/null; do
        code=137
        wait "$child"
    done
    child=''
    # cut ends the last line, too
    cut -b 1-8000 .output.part | sed 's/^/o /'
    if [ -n "$wanted" ] && [ -f "$wanted" ]; then base64 "$wanted" | sed 's/^/b /'; fi
    echo "x $code"
    exit 0
}

run() { # SHA256 MASK THREADS RUNS MIN_S MAX_S WARMUP_RUNS WARMUP_S PROFILE
    if ! { [ $# -eq 9 ] && is_hash "$1" && is_count "$3" && is_count "$4" && is_decimal "$5" && is_decimal "$6" &&
        is_count "$7" && is_decimal "$8" && is_count "$9"; }; then
        fatal "a run request that is none"
    fi
    model=$1 mask=$2 threads=$3 runs=$4 min_s=$5 max_s=$6 warmup_runs=$7 warmup_s=$8 profile=$9
    set -- "$binary" "--graph=models/$model.tflite" "--num_threads=$threads" "--use_xnnpack=true" \
        "--num_runs=$runs" "--min_secs=$min_s" "--max_secs=$max_s" \
        "--warmup_runs=$warmup_runs" "--warmup_min_secs=$warmup_s"
    [ "$profile" = 0 ] || set -- "$@" --enable_op_profiling=true
    if is_hex "$mask"; then set -- taskset "$mask" "$@"; fi
    launch '' "$@"
}

outputs() { # SHA256 THREADS BLOB SHAPE:COUNT...
    if ! { [ $# -ge 4 ] && is_hash "$1" && is_count "$2" && is_hash "$3"; }; then
        fatal "an outputs request that is none"
    fi
    model=$1 threads=$2 blob=models/$3.bin
    shift 3
    rm -f .outputs.part
    if ! inputs "$@"; then
        echo 'o the blob does not have the size of the inputs'
        echo 'x 1'
        return
    fi
    launch .outputs.part "$binary" "--graph=models/$model.tflite" "--num_threads=$threads" --use_xnnpack=true \
        --num_runs=1 --min_secs=0 --warmup_runs=1 --warmup_min_secs=0 "--input_layer=$names" \
        "--input_layer_shape=$shapes" "--input_layer_value_files=$values" --output_filepath=.outputs.part
}

inputs() { # SHAPE:COUNT...: cut the blob into the inputs' values, all of one width
    total=0 names='' shapes='' values='' at=1 number=0
    for input in "$@"; do
        if ! { is_shape "${input%:*}" && is_count "${input##*:}"; }; then fatal "an input that is none: $input"; fi
        total=$((total + ${input##*:}))
    done
    bytes=$(stat -c %s "$blob" 2>/dev/null) || return 1
    is_count "$bytes" && [ $total -gt 0 ] && [ $((bytes % total)) -eq 0 ] || return 1
    width=$((bytes / total))
    case $width in 1 | 2 | 4 | 8) ;; *) return 1 ;; esac
    for input in "$@"; do
        size=$((${input##*:} * width))
        tail -c "+$at" "$blob" | head -c $size >".input$number.part" || return 1
        # Names are ours: the binary only compares their number with the model's.
        names=$names${names:+,}i$number
        shapes=$shapes${shapes:+:}${input%:*}
        values=$values${values:+,}i$number:.input$number.part
        at=$((at + size)) number=$((number + 1))
    done
}

check() { # SHA256...
    for model in "$@"; do
        is_hash "$model" || fatal "a check request that is none"
        set -- "$@" "models/$model.tflite"
        shift
    done
    sha256sum "$@" 2>/dev/null | sed 's/^/h /'
    echo z
}

# --- conditions -------------------------------------------------------------------------------------------------------

state() {
    set +f
    cpus=/sys/devices/system/cpu
    for file in /sys/class/thermal/thermal_zone*/temp; do
        ! first_line "$file" || printf 't %s\n' "$line"
    done
    ! first_line /sys/devices/platform/soc/soc:firmware/get_throttled || printf 'p %s\n' "$line"
    for file in $cpus/cpu[0-9]*/thermal_throttle/core_throttle_count; do
        ! first_line "$file" || printf 'c %s\n' "$line"
    done
    for folder in $cpus/cpu[0-9]*/cpufreq; do
        cpu=${folder#"$cpus"/cpu}
        ! first_line "$folder/scaling_max_freq" || printf 'f %s %s\n' "${cpu%/cpufreq}" "$line"
    done
    set -f
    echo z
}

# --- requests ---------------------------------------------------------------------------------------------------------

end() { # CODE: nothing that we started may outlive us, and what is blocked in writing cannot be waited for
    set +f
    for file in /proc/[0-9]*/stat; do
        first_line "$file" || continue
        other=${file#/proc/}
        # shellcheck disable=SC2086
        set -- "$1" ${line##*) } # after the name in brackets: state, parent, group
        [ "${4-}" != "$pid" ] || [ "${other%/stat}" = "$pid" ] || kill -9 "${other%/stat}" 2>/dev/null
    done
    [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null # where this group is not ours alone
    [ -z "$locked" ] || rm -f .alive.part .output.part .outputs.part .input[0-9]*.part
    exit "$1"
}

serve() {
    trap 'end 0' HUP INT TERM
    trap 'end $silent_exit' USR1
    while read -r request rest; do
        beat=$((beat + 1))
        [ -z "$locked" ] || echo $beat >.alive.part
        # shellcheck disable=SC2086
        set -- $rest
        case $request,$locked in
            lock,) take_lock ;;
            kill,*) stop ;;
            alive,*) ;;
            state,1) state ;;
            check,1) check "$@" ;;
            run,1) run "$@" ;;
            outputs,1) outputs "$@" ;;
            *) fatal "a request that is none: $request" ;;
        esac
    done
    end 0
}

if [ $# -ne 4 ] || [ "$1" != serve ]; then fatal "usage: edgekd_bench.sh serve WORK OWNER BINARY"; fi
work=$2 owner=$3 binary=$4
case $owner in '' | *[!A-Za-z0-9@._:+\ -]*) owner=unknown ;; esac
digest=$(sha256sum "$binary" 2>/dev/null) || fatal "cannot read $binary"
serve
