# Starts two services as a deployment would, and asks the health check of each before and after.
set -euo pipefail

export AIRFLOW__API__PORT=18080 AIRFLOW__CORE__EXECUTOR=LocalExecutor
airflow db migrate >/dev/null 2>&1
for service in api-server scheduler; do
    # The name of a service, and nothing behind it: not well.
    (exec -a "airflow $service" sleep 600) &
    idle=$!
    sleep 1
    if /opt/aitp/docker/healthcheck "$idle" >/dev/null 2>&1; then
        echo "the health check takes an idle process for a $service"
        exit 1
    fi
    kill "$idle"
    airflow "$service" >"/tmp/$service.log" 2>&1 &
    process=$!
    for _ in $(seq 90); do
        if /opt/aitp/docker/healthcheck "$process" >/dev/null 2>&1; then
            echo "$service is well"
            break
        fi
        sleep 1
    done
    /opt/aitp/docker/healthcheck "$process" >/dev/null
    kill "$process"
    wait "$process" || true
done
