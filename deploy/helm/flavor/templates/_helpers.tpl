{{/* Names. That of a Service has 63 characters at most */}}
{{- define "flavor.name" -}}
{{- ternary .Release.Name (printf "%s-flavor" .Release.Name) (contains "flavor" .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "flavor.labels" -}}
app.kubernetes.io/name: flavor
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: flavor
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "flavor.selector" -}}
app.kubernetes.io/name: flavor
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of a pod: those that select it, and the release, so that its logs say which flavor it is */}}
{{- define "flavor.podLabels" -}}
{{ include "flavor.selector" . }}
app.kubernetes.io/part-of: flavor
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "flavor.image" -}}
{{- $tag := .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}flavor-{{ .stage }}:{{ $tag }}
{{- end -}}

{{/* Security of pods and containers: what the restricted Pod Security Standard asks for, and a root that is read-only */}}
{{- define "flavor.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 .Values.podSecurity.user }}
  runAsGroup: {{ int64 .Values.podSecurity.group }}
  fsGroup: {{ int64 .Values.podSecurity.group }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a cloud knows a pod by that uses the bucket */}}
{{- define "flavor.identity" -}}
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- end -}}

{{- define "flavor.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where the pods of a component may run */}}
{{- define "flavor.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Redis */}}
{{- define "flavor.redisHost" -}}
{{ include "flavor.name" . }}-redis.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "flavor.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "flavor.name" .)) }}
{{- end -}}

{{- define "flavor.tlsSecret" -}}
{{ .Values.redis.tls.existingSecret | default (printf "%s-redis-tls" (include "flavor.name" .)) }}
{{- end -}}

{{- define "flavor.tokensSecret" -}}
{{ .Values.tokensSecret | default (printf "%s-tokens" (include "flavor.name" .)) }}
{{- end -}}

{{/* How a Service is reached from outside. Peers of a NetworkPolicy need the addresses of the clients, which "Local" keeps */}}
{{- define "flavor.service" -}}
type: {{ .service.type }}
{{- $policy := .service.externalTrafficPolicy | default (ternary "Local" "" (gt (len .allowFrom) 0)) }}
{{- if and $policy (ne .service.type "ClusterIP") }}
externalTrafficPolicy: {{ $policy }}
{{- end }}
{{- with .service.loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "flavor.keySecret" -}}
{{ .Values.aggregator.keySecret | default (printf "%s-aggregator-key" (include "flavor.name" .)) }}
{{- end -}}

{{/* Variables by which a program reaches Redis. user: default, worker or viewer */}}
{{- define "flavor.redisEnv" -}}
{{- $root := .root -}}
{{- if $root.Values.redis.enabled -}}
{{- $users := dict "default" "default" "worker" "flavor-worker:chart" "viewer" "flavor-viewer:chart" -}}
{{- $keys := dict "default" "password" "worker" "worker-password" "viewer" "viewer-password" -}}
- name: FLAVOR_REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "flavor.redisSecret" $root }}, key: {{ get $keys .user }}}}
- name: FLAVOR_REDIS_URL
  value: {{ printf "%s://%s:$(FLAVOR_REDIS_PASSWORD)@%s:%v" (ternary "rediss" "redis" $root.Values.redis.tls.enabled) (get $users .user | replace ":" "%3A") (include "flavor.redisHost" $root) (int $root.Values.redis.service.port) | quote }}
{{- if $root.Values.redis.tls.enabled }}
- name: FLAVOR_TLS_CA
  value: /run/secrets/flavor-ca/ca.pem
{{- else }}
- name: FLAVOR_INSECURE
  value: "1"
{{- end }}
{{- else -}}
{{- $external := $root.Values.redis.external -}}
- name: FLAVOR_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ get $external.keys .user }}}}
{{- if $external.caSecret }}
- name: FLAVOR_TLS_CA
  value: /run/secrets/flavor-ca/ca.pem
{{- end }}
{{- if $external.insecure }}
- name: FLAVOR_INSECURE
  value: "1"
{{- end }}
{{- end -}}
{{- end -}}

{{- define "flavor.caSecret" -}}
{{- if .Values.redis.enabled -}}
{{- if .Values.redis.tls.enabled }}{{ include "flavor.tlsSecret" . }}{{ end -}}
{{- else }}{{ .Values.redis.external.caSecret }}{{ end -}}
{{- end -}}

{{/* The store */}}
{{- define "flavor.storeClaim" -}}
{{- if .Values.store.claim.name }}{{ .Values.store.claim.name }}{{ else if .Values.store.claim.create }}{{ include "flavor.name" . }}-store{{ end -}}
{{- end -}}

{{/* Variables of every program of flavor */}}
{{- define "flavor.env" -}}
{{ include "flavor.redisEnv" . }}
- name: FLAVOR_STORE
  value: {{ .root.Values.store.url | default "/store" | quote }}
- name: HOME
  value: /work
- name: TMPDIR
  value: /work
{{- end -}}

{{/* The cache of a bucket in the pod's own folder. It takes half: Kubernetes ends a pod whose folder is larger than workSize */}}
{{- define "flavor.cacheEnv" -}}
- name: FLAVOR_STORE_CACHE
  value: /work/cache
- name: FLAVOR_STORE_CACHE_SIZE
  value: {{ div (include "flavor.bytes" .workSize) 2 | quote }}
{{- end -}}

{{- define "flavor.envFrom" -}}
{{- with .Values.store.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* Mounts of every program of flavor. readOnly: of the store */}}
{{- define "flavor.mounts" -}}
- {name: work, mountPath: /work}
- {name: alive, mountPath: /run/flavor}
{{- if include "flavor.caSecret" .root }}
- {name: ca, mountPath: /run/secrets/flavor-ca, readOnly: true}
{{- end }}
{{- if include "flavor.storeClaim" .root }}
- {name: store, mountPath: /store{{ if .readOnly }}, readOnly: true{{ end }}}
{{- end }}
{{- end -}}

{{- define "flavor.volumes" -}}
- name: work
  emptyDir: {sizeLimit: {{ .workSize }}}
- name: alive
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- with include "flavor.caSecret" .root }}
- name: ca
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.pem, path: ca.pem}]}
{{- end }}
{{- with include "flavor.storeClaim" .root }}
- name: store
  persistentVolumeClaim: {claimName: {{ . }}{{ if $.readOnly }}, readOnly: true{{ end }}}
{{- end }}
{{- end -}}

{{/* A program that is alive rewrites its file every 5 s, also while it waits for Redis or for the store */}}
{{- define "flavor.probes" -}}
startupProbe:
  exec: {command: [test, -e, /run/flavor/alive]}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
  exec: {command: [grep, -qx, ready, /run/flavor/alive]}
  periodSeconds: 5
livenessProbe:
  exec:
    command: [sh, -c, "test $(( $(date +%s) - $(stat -c %Y /run/flavor/alive) )) -lt 60"]
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Probes of a program that serves HTTP */}}
{{- define "flavor.httpProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* A number as a person writes it: Helm reads 1000000 as 1e+06. From 2^53 on, int64 would write another one */}}
{{- define "flavor.plain" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) (lt (float64 .) 9007199254740992.0) (gt (float64 .) -9007199254740992.0) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* Bytes of a size as Kubernetes or Redis write it; 0 for one that is written in another way, as 1.5Gi */}}
{{- define "flavor.bytes" -}}
{{- $powers := dict "" 0 "k" 1 "kb" 1 "ki" 1 "m" 2 "mb" 2 "mi" 2 "g" 3 "gb" 3 "gi" 3 "t" 4 "ti" 4 -}}
{{- $unit := regexReplaceAll "^[0-9]+" (toString .) "" | lower -}}
{{- if and (regexMatch "^[0-9]+[A-Za-z]*$" (toString .)) (hasKey $powers $unit) -}}
{{- $bytes := regexFind "^[0-9]+" (toString .) | int64 -}}
{{- range until (int (get $powers $unit)) }}{{ $bytes = mul $bytes 1024 }}{{ end -}}
{{- $bytes -}}
{{- else -}}0{{- end -}}
{{- end -}}

{{/* The longest time of an aggregation in seconds, over all runs */}}
{{- define "flavor.longestJobS" -}}
{{- $longest := 0 -}}
{{- range $run, $options := .Values.runs -}}
{{- $longest = max $longest (int64 (ceil (get ($options | default dict) "aggregation-timeout-s" | default 3600))) -}}
{{- end -}}
{{- $longest | default 3600 -}}
{{- end -}}

{{- define "flavor.graceS" -}}
{{- if kindIs "invalid" .Values.aggregator.terminationGracePeriodSeconds -}}
{{ add (include "flavor.longestJobS" .) 60 }}
{{- else -}}
{{ int64 .Values.aggregator.terminationGracePeriodSeconds }}
{{- end -}}
{{- end -}}
