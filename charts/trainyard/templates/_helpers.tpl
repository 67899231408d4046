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
{{- /* The Secret that somebody else fills with the certificates; empty where the operator makes its own. */ -}}
{{- define "trainyard.tlsSecret" -}}
{{- if .Values.tls.certManager.issuerRef }}trainyard-operator-cert-manager{{ else }}{{ .Values.tls.existingSecret }}{{ end }}
{{- end }}
{{- /* The Secret that the operator makes, and the only one that it may read. */ -}}
{{- define "trainyard.ownSecret" -}}
trainyard-operator-ca
{{- end }}
