{{- define "edge.name" -}}
{{- if contains "flavor" .Release.Name -}}{{ .Release.Name }}{{- else -}}flavor-{{ .Release.Name }}{{- end -}}
{{- end -}}

{{- define "edge.selector" -}}
app.kubernetes.io/name: flavor-edge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "edge.labels" -}}
{{ include "edge.selector" . }}
app.kubernetes.io/component: edge
app.kubernetes.io/part-of: flavor
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "edge.checks" -}}
{{- if not .Values.tokenSecret }}
{{- fail "tokenSecret is not set: kubectl create secret generic site-1 --from-file=token=site-1.token" }}
{{- end }}
{{- if not .Values.image }}
{{- fail "image is not set: name the image of the site, which is made FROM flavor-edge" }}
{{- end }}
{{- if and .Values.input.claim .Values.input.hostPath }}
{{- fail "input.claim and input.hostPath are both set: choose where the site's data are" }}
{{- end }}
{{- if and .Values.store.claim (or .Values.input.claim .Values.input.hostPath) (eq .Values.store.path .Values.input.path) }}
{{- fail (printf "input.path and store.path are both %s: the store would be mounted over the data" .Values.input.path) }}
{{- end }}
{{- if and .Values.store.claim .Values.store.credentialsSecret }}
{{- fail "store.claim and store.credentialsSecret are both set: the store is a folder or a bucket" }}
{{- end }}
{{- if and (eq .Values.program "flavor-fv") .Values.evaluate }}
{{- fail "evaluate is for flavor-fl: with program flavor-fv, main is the command that judges" }}
{{- end }}
{{- end -}}

{{/* Bytes of the cache of a bucket: half of the volume, which also has the files of the run */}}
{{- define "edge.cacheBytes" -}}
{{- $bytes := regexFind "^[0-9]+" .Values.state.size | int64 -}}
{{- range until (index (dict "M" 2 "G" 3 "T" 4) (regexFind "[MGT]" .Values.state.size)) }}{{ $bytes = mul $bytes 1000 }}{{ end -}}
{{- div $bytes 2 -}}
{{- end -}}

{{/* A number as a person writes it: Helm reads 1000000 as 1e+06. From 2^53 on, int64 would write another one */}}
{{- define "edge.plain" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) (lt (float64 .) 9007199254740992.0) (gt (float64 .) -9007199254740992.0) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "edge.pod" -}}
metadata:
  labels:
    {{- include "edge.selector" . | nindent 4 }}
    app.kubernetes.io/component: edge
    app.kubernetes.io/part-of: flavor
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"     # a round may take a day
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  {{- with .Values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  enableServiceLinks: false
  shareProcessNamespace: true   # its first process reaps what a script leaves behind
  restartPolicy: Never
  terminationGracePeriodSeconds: {{ int .Values.terminationGracePeriodSeconds }}
{{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
{{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int .Values.podSecurity.user }}
    runAsGroup: {{ int .Values.podSecurity.group }}
    fsGroup: {{ int .Values.podSecurity.group }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
  imagePullSecrets:
{{- range . }}
    - name: {{ . }}
{{- end }}
{{- end }}
  containers:
    - name: edge
      image: {{ .Values.image }}
      imagePullPolicy: {{ .Values.imagePullPolicy }}
      command: [{{ .Values.program }}]
      args:
        - --join=@/run/secrets/flavor-token/token
        - {{ printf "--main=%s" .Values.main | quote }}
        {{- if eq .Values.program "flavor-fv" }}
        - --until-end
        {{- end }}
        {{- with .Values.preprocess }}
        - {{ printf "--preprocess=%s" . | quote }}
        {{- end }}
        {{- with .Values.evaluate }}
        - {{ printf "--evaluate-main=%s" . | quote }}
        {{- end }}
        {{- if or .Values.input.claim .Values.input.hostPath }}
        - {{ printf "--input=%s" .Values.input.path | quote }}
        {{- end }}
        {{- if .Values.store.claim }}
        - {{ printf "--store=%s" .Values.store.path | quote }}
        {{- end }}
        {{- range .Values.args }}
        - {{ include "edge.plain" . | quote }}
        {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      env:
        - {name: FLAVOR_WORKSPACE, value: /state/work}
        - {name: FLAVOR_KEY, value: /state/client.key}
        - {name: FLAVOR_STORE_CACHE, value: /state/cache}
        - {name: FLAVOR_STORE_CACHE_SIZE, value: {{ include "edge.cacheBytes" . | quote }}}
        - {name: FLAVOR_ALIVE_FILE, value: /run/flavor/alive}
        - {name: HOME, value: /tmp}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- with .Values.store.credentialsSecret }}
      envFrom:
        - secretRef: {name: {{ . }}}
{{- end }}
      volumeMounts:
        - {name: token, mountPath: /run/secrets/flavor-token, readOnly: true}
        - {name: state, mountPath: /state}
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        - {name: alive, mountPath: /run/flavor}
        {{- if or .Values.input.claim .Values.input.hostPath }}
        - {name: input, mountPath: {{ .Values.input.path }}, readOnly: {{ .Values.input.readOnly }}}
        {{- end }}
        {{- if .Values.store.claim }}
        - {name: store, mountPath: {{ .Values.store.path }}}
        {{- end }}
      startupProbe:
        exec: {command: [test, -e, /run/flavor/alive]}
        periodSeconds: 2
        failureThreshold: 150
      readinessProbe:
        exec: {command: [grep, -qx, ready, /run/flavor/alive]}
        periodSeconds: 5
      livenessProbe:            # a site that waits for Redis, or trains for a day, is alive
        exec:
          command: [sh, -c, "test $(( $(date +%s) - $(stat -c %Y /run/flavor/alive) )) -lt 300"]
        periodSeconds: 60
        timeoutSeconds: 10
        failureThreshold: 3
  volumes:
    - name: token
      secret: {secretName: {{ .Values.tokenSecret }}, defaultMode: 0440, items: [{key: token, path: token}]}
    - name: state
      persistentVolumeClaim: {claimName: {{ .Values.state.claim | default (printf "%s-state" (include "edge.name" .)) }}}
    - name: tmp
      emptyDir: {}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .Values.shmSize }}}
    - name: alive
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    {{- if .Values.input.claim }}
    - name: input
      persistentVolumeClaim: {claimName: {{ .Values.input.claim }}, readOnly: {{ .Values.input.readOnly }}}
    {{- else if .Values.input.hostPath }}
    - name: input
      hostPath: {path: {{ .Values.input.hostPath }}, type: Directory}
    {{- end }}
    {{- if .Values.store.claim }}
    - name: store
      persistentVolumeClaim: {claimName: {{ .Values.store.claim }}}
    {{- end }}
{{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
{{- end }}
{{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
{{- end }}
{{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}
