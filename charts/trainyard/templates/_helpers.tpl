{{- define "trainyard.labels" -}}
app.kubernetes.io/name: trainyard-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: trainyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "trainyard.selector" -}}
app.kubernetes.io/name: trainyard-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "trainyard.host" -}}
trainyard-operator.{{ .Release.Namespace }}.svc
{{- end }}
